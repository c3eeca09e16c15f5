/*
 * folder_scan.c - which images a folder or archive holds, which of them are the asked split, and what their classes
 * are.
 *
 * Layouts: CLASS/IMAGE and SPLIT/CLASS/IMAGE below any number of wrapping folders, with anything below the class
 * folder. A split folder is train (training) or test (testing, val, valid, validation). Names that begin with a dot are
 * no data.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "engine/data/folder.h"
#include "engine/io/archive.h"
#include "engine/io/file.h"
#include "engine/io/image.h"

#define MAX_DEPTH 12

static const char *const train_names[] = {"train", "training", NULL};
static const char *const test_names[] = {"test", "testing", "val", "valid", "validation", NULL};

/* ------------------------------------------------------------------------------------------------- listing */

static sag_status add_entry(folder_scan *s, const char *folder, const char *name, bool image)
{
    size_t n = strlen(folder) + strlen(name) + 2;
    if (s->text_used + n > s->text_capacity) {
        size_t more = s->text_capacity * 2 + n + 4096;
        char *text = sag_host_realloc(s->text, more);
        if (!text) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory for file names", s->r->spec);
        s->text = text;
        s->text_capacity = more;
    }
    if (s->count == s->capacity) {
        int64_t more = s->capacity * 2 + 1024;
        folder_entry *e = sag_host_realloc(s->entry, sizeof *e * (size_t)more);
        if (!e) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory for %lld file names", s->r->spec, (long long)more);
        s->entry = e;
        s->capacity = more;
    }
    char *p = s->text + s->text_used;
    strcpy(p, folder);
    if (folder[0]) strcat(p, "/");
    strcat(p, name);
    s->entry[s->count++] = (folder_entry){.path = s->text_used, .label = -1, .image = image};
    s->text_used += n;
    return SAG_OK;
}

static sag_status list_folder(folder_scan *s, const char *relative, int depth)
{
    sag_file_names names = {0};
    char *full = relative[0] ? sag_data_text("%s/%s", s->r->path, relative) : sag_data_text("%s", s->r->path);
    if (!full) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory", s->r->spec);
    sag_status status = sag_file_list(full, &names);
    for (int64_t i = 0; status == SAG_OK && i < names.count; i++) {
        const char *name = names.name[i];
        if (name[0] == '.') continue;
        if (sag_image_is_name(name)) { /* no stat for each of a million images */
            status = add_entry(s, relative, name, true);
            continue;
        }
        sag_file_info info;
        char *path = sag_data_text("%s/%s", full, name);
        char *inner = relative[0] ? sag_data_text("%s/%s", relative, name) : sag_data_text("%s", name);
        if (!path || !inner)
            status = sag_fail(SAG_ERR_MEMORY, "%s: out of memory", s->r->spec);
        else if ((status = sag_file_stat(path, &info)) == SAG_OK && info.type == SAG_FILE_FOLDER) {
            status = add_entry(s, inner, "", false); /* an empty class is seen by this */
            if (status == SAG_OK && depth < MAX_DEPTH) status = list_folder(s, inner, depth + 1);
        }
        sag_host_free(path);
        sag_host_free(inner);
    }
    sag_file_names_free(&names);
    sag_host_free(full);
    return status;
}

static bool hidden(const char *name)
{
    return name[0] == '.' || strstr(name, "/.") || strncmp(name, "__MACOSX/", 9) == 0;
}

typedef struct lister {
    folder_scan *s;
    sag_status status; /* of add_entry, which `wants` cannot return */
} lister;

static bool list_member(void *user, const char *name, int64_t size)
{
    (void)size;
    lister *l = user;
    if (l->status == SAG_OK && !hidden(name)) l->status = add_entry(l->s, "", name, sag_image_is_name(name));
    return false;
}

sag_status sag_folder_list(folder_scan *s)
{
    sag_file_info info;
    SAG_TRY(sag_file_stat(s->r->path, &info));
    if (info.type == SAG_FILE_MISSING) SAG_FAIL(SAG_ERR_IO, "%s: %s does not exist", s->r->spec, s->r->path);
    if (info.type == SAG_FILE_FOLDER) return list_folder(s, "", 0);
    s->archive = true;
    lister l = {s, SAG_OK};
    sag_archive_visitor v = {.user = &l, .wants = list_member};
    sag_status status = sag_archive_walk(s->r->path, &v);
    if (status == SAG_ERR_FORMAT && s->count == 0)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: neither a folder nor a .tar or .tar.gz archive: %s", s->r->spec,
                 sag_error_message());
    SAG_TRY(status);
    return l.status;
}

/* ------------------------------------------------------------------------------- splits and classes */

/* Part `level` of a path; false if the path has no folder at that level. */
static bool part_at(const char *path, int level, const char **part, size_t *n)
{
    *part = path;
    *n = 0;
    for (; level >= 0; level--) {
        const char *slash = strchr(path, '/');
        if (!slash) return false;
        *part = path;
        *n = (size_t)(slash - path);
        path = slash + 1;
    }
    return true;
}

static int name_in(const char *part, size_t n, const char *const *list)
{
    for (int i = 0; list[i]; i++)
        if (strlen(list[i]) == n && strncasecmp(part, list[i], n) == 0) return i;
    return -1;
}

static bool is_split(const char *part, size_t n)
{
    return name_in(part, n, train_names) >= 0 || name_in(part, n, test_names) >= 0;
}

/* Folders that every image lies in: wrapping ones, down to where a split or several names appear. */
static int common_levels(const folder_scan *s)
{
    for (int level = 0;; level++) {
        const char *first = NULL, *part;
        size_t n_first = 0, n;
        for (int64_t i = 0; i < s->count; i++) {
            if (!s->entry[i].image) continue;
            if (!part_at(folder_path(s, i), level, &part, &n)) return level;
            if (!first) {
                first = part;
                n_first = n;
                if (is_split(part, n)) return level;
            }
            if (n != n_first || memcmp(part, first, n) != 0) return level;
        }
    }
}

/* Which split folder serves: the lowest index in `aliases` that is there with images; -1: none. */
static int find_split(const folder_scan *s, int level, const char *const *aliases)
{
    int best = -1;
    const char *part;
    size_t n;
    for (int64_t i = 0; i < s->count; i++)
        if (s->entry[i].image && part_at(folder_path(s, i), level, &part, &n)) {
            int k = name_in(part, n, aliases);
            if (k >= 0 && (best < 0 || k < best)) best = k;
        }
    return best;
}

static bool in_split(const folder_scan *s, int64_t i, int level, const char *name)
{
    const char *part;
    size_t n;
    return part_at(folder_path(s, i), level, &part, &n) && strlen(name) == n && strncasecmp(part, name, n) == 0;
}

typedef struct span {
    const char *at;
    size_t n;
} span;

static int compare_spans(const void *a, const void *b)
{
    const span *x = a, *y = b;
    int c = memcmp(x->at, y->at, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

/* The sorted names at `level` among the entries of `split` (NULL: all), as strings in s->names. */
static sag_status collect_classes(folder_scan *s, int split_level, const char *split, int level)
{
    span *spans = sag_host_alloc(sizeof *spans * (size_t)(s->count + 1));
    if (!spans) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory", s->r->spec);
    int64_t n = 0, kept = 0;
    size_t bytes = 0;
    for (int64_t i = 0; i < s->count; i++) {
        if (split && !in_split(s, i, split_level, split)) continue;
        if (!part_at(folder_path(s, i), level, &spans[n].at, &spans[n].n)) continue;
        if (n == 0 || compare_spans(&spans[n], &spans[n - 1]) != 0) n++; /* neighbours are mostly of one class */
    }
    qsort(spans, (size_t)n, sizeof *spans, compare_spans);
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || compare_spans(&spans[i], &spans[kept - 1]) != 0) {
            spans[kept++] = spans[i];
            bytes += spans[i].n + 1;
        }
    s->names = sag_host_alloc(bytes);
    s->classes = sag_host_alloc(sizeof *s->classes * (size_t)(kept + 1));
    if (s->names && s->classes) {
        char *p = s->names;
        for (int64_t i = 0; i < kept; i++) {
            s->classes[i] = p;
            memcpy(p, spans[i].at, spans[i].n);
            p += spans[i].n + 1;
        }
        s->n_classes = (int)kept;
    }
    sag_host_free(spans);
    if (!s->names || !s->classes) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory for class names", s->r->spec);
    return SAG_OK;
}

static int class_of(const folder_scan *s, const char *part, size_t n)
{
    int low = 0, high = s->n_classes - 1;
    span want = {part, n};
    while (low <= high) {
        int mid = (low + high) / 2;
        span have = {s->classes[mid], strlen(s->classes[mid])};
        int c = compare_spans(&want, &have);
        if (c == 0) return mid;
        if (c < 0)
            high = mid - 1;
        else
            low = mid + 1;
    }
    return -1;
}

/* All images of one folder, or of none: the class is called after the folder, or the data set. */
static sag_status single_class(folder_scan *s, int level)
{
    const char *part = NULL;
    size_t n = 0;
    for (int64_t i = 0; i < s->count && !part; i++)
        if (s->entry[i].image && level > 0) part_at(folder_path(s, i), level - 1, &part, &n);
    s->names = part && !is_split(part, n) ? sag_data_text("%.*s", (int)n, part) : sag_data_base_name(s->r->path);
    s->classes = sag_host_alloc(sizeof *s->classes);
    if (!s->names || !s->classes) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory", s->r->spec);
    s->classes[0] = s->names;
    s->n_classes = 1;
    return SAG_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* n01443537_goldfish -> goldfish, if all names have this form and stay different. */
static sag_status drop_wordnet_ids(folder_scan *s)
{
    enum { ID = 10 }; /* n, eight digits, underscore */
    for (int i = 0; i < s->n_classes; i++) {
        const char *name = s->classes[i];
        if (strlen(name) <= ID || name[0] != 'n' || name[9] != '_') return SAG_OK;
        for (int d = 1; d < 9; d++)
            if (!isdigit((unsigned char)name[d])) return SAG_OK;
    }
    const char **sorted = sag_host_alloc(sizeof *sorted * (size_t)s->n_classes);
    if (!sorted) SAG_FAIL(SAG_ERR_MEMORY, "%s: out of memory for class names", s->r->spec);
    for (int i = 0; i < s->n_classes; i++) sorted[i] = s->classes[i] + ID;
    qsort(sorted, (size_t)s->n_classes, sizeof *sorted, compare_names);
    bool twice = false;
    for (int i = 1; i < s->n_classes; i++) twice = twice || strcmp(sorted[i], sorted[i - 1]) == 0;
    sag_host_free(sorted);
    for (int i = 0; i < s->n_classes && !twice; i++) s->classes[i] += ID;
    return SAG_OK;
}

/* ---------------------------------------------------------------------------------------------- choosing */

static int compare_entries(const void *a, const void *b, void *user)
{
    const folder_entry *x = a, *y = b;
    const folder_scan *s = user;
    if (x->label != y->label) return x->label < y->label ? -1 : 1;
    return strcmp(s->text + x->path, s->text + y->path);
}

static sag_status missing_split(const folder_scan *s, int level, bool has_splits)
{
    const char *part, *seen[6];
    size_t n, seen_n[6];
    int found = 0;
    char list[256] = "";
    for (int64_t i = 0; i < s->count && found < 6; i++) {
        if (!s->entry[i].image || !part_at(folder_path(s, i), level, &part, &n)) continue;
        bool known = false;
        for (int k = 0; k < found; k++) known = known || (seen_n[k] == n && memcmp(seen[k], part, n) == 0);
        if (known) continue;
        seen[found] = part;
        seen_n[found++] = n;
        size_t used = strlen(list);
        if (used + n + 8 < sizeof list) {
            if (used) strcat(list, ", ");
            strncat(list, part, n);
        }
    }
    SAG_FAIL(SAG_ERR_IO, "%s: no %s split in it: there is %s%s%s", s->r->spec, s->r->split,
             list[0] ? list : "no sub-folder", found == 6 ? ", ..." : "",
             has_splits ? "" : "; class folders without a train/ or test/ (val/) folder above them count as train");
}

sag_status sag_folder_choose(folder_scan *s)
{
    bool test = strcmp(s->r->split, "test") == 0;
    bool any = false;
    const char *part;
    size_t n;
    for (int64_t i = 0; i < s->count && !any; i++) any = s->entry[i].image;
    if (!any)
        SAG_FAIL(SAG_ERR_FORMAT, "%s: no images: %s holds no .png, .jpg, .jpeg or .bmp file", s->r->spec, s->r->path);
    int level = common_levels(s);
    int train = find_split(s, level, train_names), held_out = find_split(s, level, test_names);
    const char *split = NULL, *classes_from = NULL;
    if (train >= 0 || held_out >= 0) {
        if ((test ? held_out : train) < 0) return missing_split(s, level, true);
        split = test ? test_names[held_out] : train_names[train];
        /* labels must mean the same in both splits, so the names of train are the names */
        classes_from = train >= 0 ? train_names[train] : split;
    } else if (test) {
        return missing_split(s, level, false);
    }
    int class_level = level + (split ? 1 : 0);
    SAG_TRY(collect_classes(s, level, classes_from, class_level));
    bool single = true; /* no image of the split lies in a folder at the class level */
    for (int64_t i = 0; i < s->count && single; i++)
        single = !(s->entry[i].image && (!split || in_split(s, i, level, split)) &&
                   part_at(folder_path(s, i), class_level, &part, &n));
    if (single) {
        sag_host_free(s->names);
        sag_host_free(s->classes);
        SAG_TRY(single_class(s, class_level));
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < s->count; i++) {
        folder_entry e = s->entry[i];
        if (!e.image || (split && !in_split(s, i, level, split))) continue;
        e.label = 0;
        if (!single) {
            if (!part_at(folder_path(s, i), class_level, &part, &n))
                continue; /* a stray image beside the class folders */
            e.label = class_of(s, part, n);
            if (e.label < 0)
                SAG_FAIL(SAG_ERR_FORMAT, "%s: class %.*s is in %s/ but not in %s/", s->r->spec, (int)n, part, split,
                         classes_from);
        }
        s->entry[kept++] = e;
    }
    s->count = kept;
    if (kept < 1) SAG_FAIL(SAG_ERR_FORMAT, "%s: no images of split %s", s->r->spec, s->r->split);
    qsort_r(s->entry, (size_t)kept, sizeof *s->entry, compare_entries, s);
    int64_t unique = 1; /* an archive may hold a member twice: the later one replaces the earlier */
    for (int64_t i = 1; i < kept; i++)
        if (strcmp(folder_path(s, i), folder_path(s, unique - 1)) != 0) s->entry[unique++] = s->entry[i];
    s->count = unique;
    for (int64_t i = 0, c = 0; c < s->n_classes; c++) {
        if (i >= s->count || s->entry[i].label != c)
            SAG_FAIL(SAG_ERR_FORMAT, "%s: class folder %s has no images in split %s: fill it or take it away",
                     s->r->spec, s->classes[c], s->r->split);
        while (i < s->count && s->entry[i].label == c) i++;
    }
    SAG_TRY(drop_wordnet_ids(s));
    int64_t chosen = sag_data_chosen(s->r, s->count);
    for (int64_t i = 0; i < chosen; i++) s->entry[i] = s->entry[sag_data_chosen_at(i, chosen, s->count)];
    s->count = chosen;
    return SAG_OK;
}

void sag_folder_scan_free(folder_scan *s)
{
    sag_host_free(s->text);
    sag_host_free(s->entry);
    sag_host_free(s->classes);
    sag_host_free(s->names);
}
