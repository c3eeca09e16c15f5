/* Frames over Unix sockets: partial writes, closed peers, full buffers, rubbish, stale and long paths, other users. */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/io/socket.h"
#include "temporary.h"

#define MOST ((size_t)1 << 20)

static sag_socket *listener, *server, *client;

static void connect_pair(size_t most)
{
    const char *p = temp_path("pair");
    assert_ok(sag_socket_listen(p, most, &listener));
    assert_ok(sag_socket_accept(listener, &server));
    assert_null(server); /* nobody yet */
    assert_ok(sag_socket_connect(p, most, &client));
    assert_ok(sag_socket_accept(listener, &server));
    assert_non_null(server);
}

static void close_pair(void)
{
    sag_socket_close(client);
    sag_socket_close(server);
    sag_socket_close(listener);
    client = server = listener = NULL;
    assert_int_equal(temp_count(), 0);
}

/* A plain descriptor that speaks to the listener, to send what no sag_socket would. */
static int raw_client(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", temp_path("pair"));
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static int waits(sag_socket *s, double seconds)
{
    int ready;
    assert_ok(sag_socket_wait(&s, 1, seconds, &ready));
    return ready;
}

static void expect_frame(sag_socket *s, const void *wanted, size_t size)
{
    const uint8_t *bytes;
    size_t got;
    assert_ok(sag_socket_receive(s, &bytes, &got));
    assert_non_null(bytes);
    assert_int_equal(got, size);
    assert_memory_equal(bytes, wanted, size);
}

static void expect_nothing(sag_socket *s)
{
    const uint8_t *bytes;
    size_t got;
    assert_ok(sag_socket_receive(s, &bytes, &got));
    assert_null(bytes);
}

static void frames_arrive_whole_and_in_order(void **state)
{
    (void)state;
    connect_pair(MOST);
    assert_int_equal(waits(server, 0), 0);
    expect_nothing(server);
    assert_ok(sag_socket_send(client, "one", 3));
    assert_ok(sag_socket_send(client, "", 0));
    assert_ok(sag_socket_send(client, "three\0", 6));
    assert_int_equal(waits(server, 5), 1);
    expect_frame(server, "one", 3);
    assert_int_equal(waits(server, 5), 1); /* received, but not handed out: poll alone would sleep */
    expect_frame(server, "", 0);
    expect_frame(server, "three\0", 6);
    expect_nothing(server);
    assert_int_equal(waits(server, 0), 0);
    assert_ok(sag_socket_send(server, "back", 4));
    expect_frame(client, "back", 4);
    close_pair();
}

/* Bytes that come one at a time make a frame, and the beginning of one makes nothing. */
static void half_a_frame_waits(void **state)
{
    (void)state;
    assert_ok(sag_socket_listen(temp_path("pair"), MOST, &listener));
    int fd = raw_client();
    assert_ok(sag_socket_accept(listener, &server));
    const char frame[] = {5, 0, 0, 0, 'h', 'e', 'l', 'l', 'o', 2, 0, 0, 0, 'x'};
    for (size_t i = 0; i < sizeof frame; i++) {
        assert_int_equal(write(fd, frame + i, 1), 1);
        if (i == 8)
            expect_frame(server, "hello", 5);
        else
            expect_nothing(server);
    }
    close(fd);
    const uint8_t *bytes;
    size_t size;
    assert_fails(sag_socket_receive(server, &bytes, &size), SAG_ERR_IO, "the other side is gone");
    close_pair();
}

static void what_was_sent_before_the_end_is_received(void **state)
{
    (void)state;
    connect_pair(MOST);
    assert_ok(sag_socket_send(client, "last words", 10));
    sag_socket_close(client);
    client = NULL;
    assert_int_equal(waits(server, 5), 1);
    expect_frame(server, "last words", 10);
    const uint8_t *bytes;
    size_t size;
    assert_fails(sag_socket_receive(server, &bytes, &size), SAG_ERR_IO, "the other side is gone");
    assert_fails(sag_socket_send(server, "x", 1), SAG_ERR_IO, "the other side is gone"); /* and no SIGPIPE */
    assert_fails(sag_socket_receive(server, &bytes, &size), SAG_ERR_IO, "the other side is gone");
    assert_int_equal(waits(server, 0), 1);
    close_pair();
}

/* The system's buffer takes a part of a frame; the rest goes when the other side reads. */
static void partial_writes_are_finished_later(void **state)
{
    (void)state;
    enum { SIZE = 900 << 10 };
    connect_pair(MOST);
    uint8_t *big = malloc(SIZE);
    for (int i = 0; i < SIZE; i++) big[i] = (uint8_t)(i * 7 + i / 251);
    assert_ok(sag_socket_send(server, big, SIZE));
    size_t before = sag_socket_unsent(server);
    assert_true(before > 0 && before < SIZE);
    expect_nothing(client);
    for (int i = 0; i < 1000 && sag_socket_unsent(server) > 0; i++) {
        waits(server, 0); /* this sends */
        if (sag_socket_unsent(server) > 0) expect_nothing(client);
    }
    assert_int_equal(sag_socket_unsent(server), 0);
    expect_frame(client, big, SIZE);
    free(big);
    close_pair();
}

/* Whoever does not read is refused more; whoever then reads gets every frame that was taken, and nothing of the
 * refused. */
static void a_full_buffer_refuses_whole_frames(void **state)
{
    (void)state;
    connect_pair(MOST);
    static char block[50000];
    memset(block, 'b', sizeof block);
    int sent = 0;
    while (sag_socket_unsent(server) + sizeof block <= MOST) {
        assert_ok(sag_socket_send(server, block, sizeof block));
        assert_true(++sent < 1000);
    }
    size_t waiting = sag_socket_unsent(server);
    assert_fails(sag_socket_send(server, block, sizeof block), SAG_ERR_STATE, "that wait for the other side to read");
    assert_int_equal(sag_socket_unsent(server), waiting);
    int received = 0;
    for (int i = 0; i < 100000 && received < sent; i++) {
        const uint8_t *bytes;
        size_t size;
        waits(server, 0);
        assert_ok(sag_socket_receive(client, &bytes, &size));
        if (!bytes) continue;
        assert_int_equal(size, sizeof block);
        assert_memory_equal(bytes, block, size);
        received++;
    }
    assert_int_equal(received, sent);
    assert_ok(sag_socket_send(server, "after", 5));
    expect_frame(client, "after", 5);
    static char large[MOST + 1];
    assert_fails(sag_socket_send(server, large, sizeof large), SAG_ERR_STATE, "more than 1048576");
    assert_ok(sag_socket_send(server, large, MOST));
    close_pair();
}

static void rubbish_ends_the_connection(void **state)
{
    (void)state;
    assert_ok(sag_socket_listen(temp_path("pair"), 1000, &listener));
    int fd = raw_client();
    assert_ok(sag_socket_accept(listener, &server));
    const uint8_t header[] = {0xe9, 3, 0, 0}; /* 1001 */
    assert_int_equal(write(fd, header, sizeof header), 4);
    const uint8_t *bytes;
    size_t size;
    assert_fails(sag_socket_receive(server, &bytes, &size), SAG_ERR_FORMAT, "1001 bytes was announced; at most 1000");
    assert_fails(sag_socket_receive(server, &bytes, &size), SAG_ERR_FORMAT, "1001");
    close(fd);
    close_pair();
}

static void a_wait_ends_with_a_frame_a_signal_or_the_time(void **state)
{
    (void)state;
    connect_pair(MOST);
    sag_socket *both[] = {listener, server};
    int ready;
    assert_ok(sag_socket_wait(both, 2, 0.01, &ready));
    assert_int_equal(ready, 0);
    pid_t child = fork();
    if (child == 0) {
        usleep(20000);
        _exit(sag_socket_send(client, "now", 3) == SAG_OK ? 0 : 1);
    }
    assert_ok(sag_socket_wait(both, 2, -1, &ready));
    assert_int_equal(ready, 1);
    expect_frame(server, "now", 3);
    assert_int_equal(waitpid(child, NULL, 0), child);
    sag_socket *many[SAG_SOCKET_WAIT_MAX + 1];
    for (int i = 0; i <= SAG_SOCKET_WAIT_MAX; i++) many[i] = server;
    assert_ok(sag_socket_wait(many, SAG_SOCKET_WAIT_MAX, 0, &ready));
    assert_fails(sag_socket_wait(many, SAG_SOCKET_WAIT_MAX + 1, 0, &ready), SAG_ERR_ARG, "at most 64");
    close_pair();
}

static volatile sig_atomic_t alarms;
static void on_alarm(int number)
{
    (void)number;
    alarms = alarms + 1;
}

static void a_signal_ends_a_wait(void **state)
{
    (void)state;
    connect_pair(MOST);
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART}, before;
    sigaction(SIGALRM, &action, &before);
    ualarm(20000, 0);
    assert_int_equal(waits(server, -1), 0);
    assert_int_equal(alarms, 1);
    sigaction(SIGALRM, &before, NULL);
    close_pair();
}

static void the_file_is_private_and_goes_away(void **state)
{
    (void)state;
    const char *p = temp_path("pair");
    mode_t mask = umask(0);
    assert_ok(sag_socket_listen(p, MOST, &listener));
    umask(mask);
    struct stat st;
    assert_int_equal(lstat(p, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0600);
    close_pair(); /* counts the files */
    sag_socket *none;
    assert_fails(sag_socket_connect(p, MOST, &none), SAG_ERR_IO, "No such file");
    assert_null(none);
}

static void a_dead_process_leaves_a_socket_that_is_replaced(void **state)
{
    (void)state;
    const char *p = temp_path("pair");
    pid_t child = fork();
    if (child == 0) _exit(sag_socket_listen(p, MOST, &listener) == SAG_OK ? 0 : 1);
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 0);
    assert_int_equal(temp_count(), 1);
    sag_socket *none;
    assert_fails(sag_socket_connect(p, MOST, &none), SAG_ERR_STATE, "no process listens");
    connect_pair(MOST);
    /* A listener removes its own file only. */
    sag_socket *newer;
    assert_ok(sag_socket_listen(p, MOST, &newer));
    sag_socket_close(listener);
    listener = newer;
    assert_int_equal(temp_count(), 1);
    close_pair();
    temp_write("pair", "mine", 4);
    assert_fails(sag_socket_listen(p, MOST, &none), SAG_ERR_IO, "something other than a socket");
    assert_int_equal(remove(p), 0);
    assert_int_equal(temp_count(), 0);
}

static void paths_may_be_long(void **state)
{
    (void)state;
    char folder[600] = "", name[700];
    for (int i = 0; i < 5; i++) {
        strcat(folder, i ? "/" : "");
        memset(folder + strlen(folder), 'a' + i, 100);
    }
    assert_int_equal(mkdir(temp_path("long"), 0700), 0);
    for (size_t n = 100; n <= 504; n += 101) {
        snprintf(name, sizeof name, "long/%.*s", (int)n, folder);
        assert_int_equal(mkdir(temp_path(name), 0700), 0);
    }
    snprintf(name, sizeof name, "long/%s/control.sock", folder);
    const char *p = temp_path(name);
    assert_ok(sag_socket_listen(p, MOST, &listener));
    struct stat st;
    assert_int_equal(lstat(p, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_ok(sag_socket_connect(p, MOST, &client));
    assert_ok(sag_socket_accept(listener, &server));
    assert_ok(sag_socket_send(client, "far away", 8));
    expect_frame(server, "far away", 8);
    sag_socket_close(client);
    sag_socket_close(server);
    sag_socket_close(listener);
    client = server = listener = NULL;
    assert_int_equal(lstat(p, &st), -1);
    sag_socket *none;
    assert_fails(sag_socket_connect(p, MOST, &none), SAG_ERR_IO, "control.sock: cannot connect: No such file");
    snprintf(name, sizeof name, "long/none/%s/control.sock", folder);
    assert_fails(sag_socket_listen(temp_path(name), MOST, &none), SAG_ERR_IO, "No such file");
    char deep[6000];
    memset(deep, 'd', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    assert_fails(sag_socket_listen(deep, MOST, &none), SAG_ERR_IO, "longer than");
    assert_fails(sag_socket_connect(deep, MOST, &none), SAG_ERR_IO, "longer than");
    deep[200] = 0;
    assert_fails(sag_socket_connect(deep, MOST, &none), SAG_ERR_IO, "at most 64 bytes");
    assert_fails(sag_socket_listen(deep, MOST, &none), SAG_ERR_IO, "at most 64 bytes");
    nftw(temp_path("long"), temp_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* As root only: another user is turned away even where the mode of the file would let him in. */
static void another_user_is_turned_away(void **state)
{
    (void)state;
    if (geteuid() != 0) skip();
    const char *p = temp_path("pair");
    assert_int_equal(chmod(temp_root, 0755), 0);
    assert_ok(sag_socket_listen(p, MOST, &listener));
    for (int open_to_all = 0; open_to_all < 2; open_to_all++) {
        if (open_to_all) assert_int_equal(chmod(p, 0666), 0);
        pid_t child = fork();
        if (child == 0) {
            if (setgroups(0, NULL) != 0 || setgid(65534) != 0 || setuid(65534) != 0) _exit(3);
            sag_status status = sag_socket_connect(p, MOST, &client);
            if (!open_to_all) _exit(status == SAG_ERR_IO && strstr(sag_error_message(), "Permission denied") ? 0 : 1);
            int ready;
            const uint8_t *bytes;
            size_t size;
            if (status != SAG_OK || sag_socket_wait(&client, 1, 10, &ready) != SAG_OK) _exit(1);
            _exit(ready == 1 && sag_socket_receive(client, &bytes, &size) == SAG_ERR_IO ? 0 : 2);
        }
        if (open_to_all) {
            assert_int_equal(waits(listener, 10), 1);
            assert_ok(sag_socket_accept(listener, &server));
            assert_null(server);
        }
        int result;
        assert_int_equal(waitpid(child, &result, 0), child);
        assert_true(WIFEXITED(result));
        assert_int_equal(WEXITSTATUS(result), 0);
    }
    close_pair();
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    for (int64_t n = 1;; n++) {
        int64_t blocks = sag_debug_live_host_blocks();
        const uint8_t *bytes = NULL;
        size_t size;
        const char *p = temp_path("pair");
        sag_debug_fail_allocation(n);
        sag_status status = sag_socket_listen(p, MOST, &listener);
        if (status == SAG_OK) status = sag_socket_connect(p, MOST, &client);
        if (status == SAG_OK) status = sag_socket_accept(listener, &server);
        if (status == SAG_OK) status = sag_socket_send(client, "x", 1);
        if (status == SAG_OK) status = sag_socket_receive(server, &bytes, &size);
        sag_debug_fail_allocation(0);
        sag_socket_close(client);
        sag_socket_close(server);
        sag_socket_close(listener);
        client = server = listener = NULL;
        assert_int_equal(sag_debug_live_host_blocks(), blocks);
        assert_int_equal(temp_count(), 0);
        if (status == SAG_OK) {
            assert_int_equal(n, 7); /* two for the listener, one each for the others, two buffers: all were walked */
            break;
        }
        assert_int_equal(status, SAG_ERR_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_arrive_whole_and_in_order),
        cmocka_unit_test(half_a_frame_waits),
        cmocka_unit_test(what_was_sent_before_the_end_is_received),
        cmocka_unit_test(partial_writes_are_finished_later),
        cmocka_unit_test(a_full_buffer_refuses_whole_frames),
        cmocka_unit_test(rubbish_ends_the_connection),
        cmocka_unit_test(a_wait_ends_with_a_frame_a_signal_or_the_time),
        cmocka_unit_test(a_signal_ends_a_wait),
        cmocka_unit_test(the_file_is_private_and_goes_away),
        cmocka_unit_test(a_dead_process_leaves_a_socket_that_is_replaced),
        cmocka_unit_test(paths_may_be_long),
        cmocka_unit_test(another_user_is_turned_away),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, temp_setup, temp_teardown);
}
