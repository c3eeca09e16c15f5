/* folder.h - what a folder or archive of images holds: folder_scan.c lists and sorts it, folder.c decodes it. */
#ifndef SAG_FOLDER_H
#define SAG_FOLDER_H

#include "engine/data/dataset_internal.h"

typedef struct folder_entry {
    size_t path; /* offset into text: relative to the folder, or the member's name */
    int32_t label;
    bool image; /* else another file or an empty folder: it may still name a class */
} folder_entry;

typedef struct folder_scan {
    const sag_open_request *r;
    bool archive;
    char *text; /* all paths */
    size_t text_used, text_capacity;
    folder_entry *entry; /* after folder_choose: the images of the split, sorted by (class, path), limit applied */
    int64_t count, capacity;
    const char **classes; /* into text or `names`; sorted */
    char *names;
    int n_classes;
} folder_scan;

sag_status sag_folder_list(folder_scan *s);   /* everything below r->path */
sag_status sag_folder_choose(folder_scan *s); /* split, classes, order, limit */
void sag_folder_scan_free(folder_scan *s);
static inline const char *folder_path(const folder_scan *s, int64_t i)
{
    return s->text + s->entry[i].path;
}

#endif
