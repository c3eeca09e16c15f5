/* Whole-file reads, atomic writes and what is left after a failure, folders, locks, maps. */
#include "testing.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/io/file.h"
#include "temporary.h"

static void written_bytes_come_back(void **state)
{
    (void)state;
    const char *p = temp_path("a.bin");
    uint8_t *bytes;
    size_t size;
    assert_ok(sag_file_write_atomic(p, "one\0two", 7));
    assert_ok(sag_file_read(p, 0, &bytes, &size));
    assert_int_equal(size, 7);
    assert_memory_equal(bytes, "one\0two", 8); /* the eighth is the added zero */
    sag_host_free(bytes);
    assert_ok(sag_file_append(p, "!\n", 2));
    assert_ok(sag_file_read(p, 9, &bytes, &size));
    assert_int_equal(size, 9);
    sag_host_free(bytes);
    assert_fails(sag_file_read(p, 8, &bytes, &size), SAG_ERR_FORMAT, "the limit here is 8");
    assert_null(bytes);
    assert_ok(sag_file_write_atomic(p, "", 0));
    assert_ok(sag_file_read(p, 0, &bytes, &size));
    assert_int_equal(size, 0);
    sag_host_free(bytes);
    assert_int_equal(temp_count(), 1);
    assert_ok(sag_file_remove(p));

    struct stat st;
    mode_t mask = umask(022);
    assert_ok(sag_file_append_private(p, "mine", 4));
    assert_int_equal(stat(p, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_ok(sag_file_remove(p));
    assert_ok(sag_file_append(p, "ours", 4));
    assert_int_equal(stat(p, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);
    assert_ok(sag_file_remove(p));
    umask(mask);
}

static void unsized_files_are_read_to_the_end(void **state)
{
    (void)state;
    uint8_t *bytes;
    size_t size;
    assert_ok(sag_file_read("/proc/self/status", 0, &bytes, &size));
    assert_true(size > 100);
    assert_non_null(strstr((const char *)bytes, "Name:\ttest_file"));
    sag_host_free(bytes);
}

static void messages_name_path_and_reason(void **state)
{
    (void)state;
    uint8_t *bytes;
    size_t size;
    const char *missing = temp_path("none/x");
    assert_fails(sag_file_read(missing, 0, &bytes, &size), SAG_ERR_IO, "none/x: cannot open: No such file");
    assert_fails(sag_file_read(temp_path("."), 0, &bytes, &size), SAG_ERR_IO, "is a folder");
    assert_fails(sag_file_write_atomic(missing, "x", 1), SAG_ERR_IO, "none/x: cannot create: No such file");
    assert_fails(sag_file_write_atomic(temp_path("."), "x", 1), SAG_ERR_IO, "a folder of that name");
    assert_fails(sag_file_write_atomic("", "x", 1), SAG_ERR_IO, "not the name of a file");
    assert_fails(sag_file_append(missing, "x", 1), SAG_ERR_IO, "No such file");
    assert_fails(sag_file_remove(missing), SAG_ERR_IO, "No such file");
    assert_fails(sag_file_rename(missing, temp_path("y")), SAG_ERR_IO, "No such file");
    sag_file_names names;
    assert_fails(sag_file_list(missing, &names), SAG_ERR_IO, "cannot list");
    char deep[6000];
    memset(deep, 'a', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    assert_fails(sag_file_make_folders(deep), SAG_ERR_IO, "longer than");
    assert_fails(sag_file_write_atomic(deep, "x", 1), SAG_ERR_IO, "longer than");
    int64_t bytes_free;
    assert_fails(sag_file_free_disk(missing, &bytes_free), SAG_ERR_IO, "No such file");
}

/* A full disk, played by a limit on the size of files: the write stops in the middle. */
static void failed_write_keeps_the_old_file(void **state)
{
    (void)state;
    const char *p = temp_path("kept.bin");
    assert_ok(sag_file_write_atomic(p, "old", 3));
    size_t large = 300000;
    char *data = calloc(1, large);
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 100000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    sag_status whole = sag_file_write_atomic(p, data, large);
    char message[200];
    snprintf(message, sizeof message, "%s", sag_error_message());
    /* In small pieces the failure comes from a later flush or from commit. */
    sag_file_writer *w;
    sag_status opened = sag_file_writer_open(p, &w), pieces = SAG_OK;
    for (size_t i = 0; i < large && pieces == SAG_OK; i += 1000) pieces = sag_file_writer_write(w, data + i, 1000);
    sag_status again = sag_file_writer_write(w, data, 1), committed = sag_file_writer_commit(w);
    sag_status late = sag_file_writer_open(p, &w);
    for (size_t i = 0; i < 3; i++) sag_file_writer_write(w, data, 40000);
    sag_status at_commit = sag_file_writer_commit(w);
    sag_status appended = sag_file_append(p, data, large);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    free(data);

    assert_int_equal(whole, SAG_ERR_IO);
    assert_non_null(strstr(message, "kept.bin: cannot write: File too large"));
    assert_int_equal(opened, SAG_OK);
    assert_int_equal(pieces, SAG_ERR_IO);
    assert_int_equal(again, SAG_ERR_STATE);
    assert_int_equal(committed, SAG_ERR_STATE);
    assert_int_equal(late, SAG_OK);
    assert_int_equal(at_commit, SAG_ERR_IO);
    assert_int_equal(appended, SAG_ERR_IO);
    uint8_t *bytes;
    size_t size;
    assert_ok(sag_file_read(p, 0, &bytes, &size));
    assert_int_equal(size, 3);
    assert_memory_equal(bytes, "old", 3);
    sag_host_free(bytes);
    assert_int_equal(temp_count(), 1); /* no temporary file is left */
    assert_ok(sag_file_remove(p));
}

static void writer_is_invisible_until_commit(void **state)
{
    (void)state;
    const char *p = temp_path("late.bin");
    sag_file_writer *w;
    assert_ok(sag_file_writer_open(p, &w));
    char block[1000];
    for (int i = 0; i < 200; i++) {
        memset(block, i, sizeof block);
        assert_ok(sag_file_writer_write(w, block, sizeof block));
    }
    assert_false(sag_file_exists(p));
    assert_ok(sag_file_writer_commit(w));
    uint8_t *bytes;
    size_t size;
    assert_ok(sag_file_read(p, 0, &bytes, &size));
    assert_int_equal(size, 200000);
    for (size_t i = 0; i < size; i++) assert_int_equal(bytes[i], i / 1000);
    sag_host_free(bytes);
    assert_ok(sag_file_writer_open(p, &w));
    assert_ok(sag_file_writer_write(w, "x", 1));
    sag_file_writer_abort(w);
    sag_file_writer_abort(NULL);
    sag_file_info info;
    assert_ok(sag_file_stat(p, &info));
    assert_int_equal(info.size, 200000);
    assert_int_equal(temp_count(), 1);
    assert_ok(sag_file_remove(p));
}

static void folders_and_lists(void **state)
{
    (void)state;
    assert_ok(sag_file_make_folders(temp_path("deep/er/still")));
    assert_ok(sag_file_make_folders(temp_path("deep/er/still/")));
    sag_file_info info;
    assert_ok(sag_file_stat(temp_path("deep/er"), &info));
    assert_int_equal(info.type, SAG_FILE_FOLDER);
    assert_ok(sag_file_stat(temp_path("deep/none"), &info));
    assert_int_equal(info.type, SAG_FILE_MISSING);
    const char *names_made[] = {"b", "a", "B", "a.txt"};
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "deep/er/%s", names_made[i]);
        assert_ok(sag_file_write_atomic(temp_path(name), "1234", 4));
    }
    assert_ok(sag_file_stat(temp_path("deep/er/a.txt"), &info));
    assert_int_equal(info.type, SAG_FILE_REGULAR);
    assert_int_equal(info.size, 4);
    assert_true(fabs(info.mtime - (double)time(NULL)) < 60.0);
    sag_file_names names;
    assert_ok(sag_file_list(temp_path("deep/er"), &names));
    const char *sorted[] = {"B", "a", "a.txt", "b", "still"};
    assert_int_equal(names.count, 5);
    for (int i = 0; i < 5; i++) assert_string_equal(names.name[i], sorted[i]);
    sag_file_names_free(&names);
    assert_fails(sag_file_make_folders(temp_path("deep/er/a/x")), SAG_ERR_IO, "a file of that name");
    assert_ok(sag_file_rename(temp_path("deep/er/a"), temp_path("deep/a")));
    assert_true(sag_file_exists(temp_path("deep/a")));
    assert_fails(sag_file_remove(temp_path("deep")), SAG_ERR_IO, "not empty");
    int64_t bytes_free;
    assert_ok(sag_file_free_disk(temp_path("deep"), &bytes_free));
    assert_true(bytes_free >= 0);
}

static void maps_show_the_file(void **state)
{
    (void)state;
    sag_file_map map;
    assert_ok(sag_file_write_atomic(temp_path("m"), "mapped", 6));
    assert_ok(sag_file_map_open(temp_path("m"), &map));
    assert_int_equal(map.size, 6);
    assert_memory_equal(map.bytes, "mapped", 6);
    assert_ok(
        sag_file_write_atomic(temp_path("m"), "other!", 6)); /* replaced, not changed: the map keeps the old one */
    assert_memory_equal(map.bytes, "mapped", 6);
    sag_file_map_close(&map);
    sag_file_map_close(&map);
    assert_ok(sag_file_write_atomic(temp_path("m"), "", 0));
    assert_ok(sag_file_map_open(temp_path("m"), &map));
    assert_int_equal(map.size, 0);
    sag_file_map_close(&map);
    assert_fails(sag_file_map_open("/dev/null", &map), SAG_ERR_IO, "not a regular file");
}

static void a_lock_is_held_once(void **state)
{
    (void)state;
    const char *p = temp_path("lock");
    sag_file_lock a, b;
    bool held = true;
    assert_ok(sag_file_lock_held(p, &held));
    assert_false(held);
    assert_false(sag_file_exists(p)); /* asking makes no file */
    assert_ok(sag_file_lock_take(p, &a));
    assert_ok(sag_file_lock_held(p, &held));
    assert_true(held);
    assert_fails(sag_file_lock_take(p, &b), SAG_ERR_STATE, "locked by another process");
    pid_t child = fork();
    if (child == 0) {
        sag_file_lock c;
        _exit(sag_file_lock_take(p, &c) == SAG_ERR_STATE ? 0 : 1);
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 0);
    sag_file_lock_drop(&a);
    sag_file_lock_drop(&a);
    assert_ok(sag_file_lock_held(p, &held));
    assert_false(held);
    assert_ok(sag_file_lock_take(p, &b));
    sag_file_lock_drop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_bytes_come_back),
        cmocka_unit_test(unsized_files_are_read_to_the_end),
        cmocka_unit_test(messages_name_path_and_reason),
        cmocka_unit_test(failed_write_keeps_the_old_file),
        cmocka_unit_test(writer_is_invisible_until_commit),
        cmocka_unit_test(folders_and_lists),
        cmocka_unit_test(maps_show_the_file),
        cmocka_unit_test(a_lock_is_held_once),
    };
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
