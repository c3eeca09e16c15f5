/* temporary.h - a folder for the files of one test program, removed at its end; and the live-block check
 * around it. */
#ifndef SAG_TEMPORARY_H
#define SAG_TEMPORARY_H

#include <dirent.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "testing.h"

static char temp_root[64];
static int64_t temp_blocks;

static inline int temp_setup(void **state)
{
    (void)state;
    /* In memory where possible: some tests write thousands of small files. */
    snprintf(temp_root, sizeof temp_root, "%s/sagan-test-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    temp_blocks = sag_debug_live_host_blocks();
    return mkdtemp(temp_root) ? 0 : -1;
}

static inline int temp_remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static inline int temp_teardown(void **state)
{
    (void)state;
    int result = nftw(temp_root, temp_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (sag_debug_live_host_blocks() != temp_blocks) {
        fprintf(stderr, "%lld host blocks leaked\n", (long long)(sag_debug_live_host_blocks() - temp_blocks));
        return -1;
    }
    return result;
}

/* Four at a time can be in use. */
static inline const char *temp_path(const char *name)
{
    static char path[4][4096];
    static int turn;
    char *p = path[turn = (turn + 1) % 4];
    snprintf(p, sizeof path[0], "%s/%.3900s", temp_root, name);
    return p;
}

/* How many files and folders lie in the folder itself, hidden ones included. */
static inline int temp_count(void)
{
    DIR *dir = opendir(temp_root);
    int n = -2;
    while (readdir(dir)) n++;
    closedir(dir);
    return n;
}

static inline void temp_write(const char *name, const void *bytes, size_t size)
{
    FILE *f = fopen(temp_path(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

#endif
