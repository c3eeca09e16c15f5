/* emulator.h - what the emulator's own files share. */
#ifndef SAG_EMULATOR_H
#define SAG_EMULATOR_H

#include <deque>
#include <functional>
#include <vector>

#include "tests/cuda_emulator/cuda_emulator.h"
#include "tests/cuda_emulator/hooks.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define EMULATOR_ASAN 1
#else
#define EMULATOR_ASAN 0
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace emulator {

/* ------------------------------------------------------------------------------------------------- fibers.cpp */

struct fiber {
    void *stack_pointer;
    char *stack;
    void *shadow; /* the address sanitizer's own */
};
constexpr size_t STACK_BYTES = EMULATOR_ASAN ? (size_t)512 << 10 : (size_t)128 << 10;

/* A fiber that will call entry(), which never returns, when first switched to. */
void fiber_prepare(fiber *f, void (*entry)());
void fiber_switch(fiber *from, fiber *to);
/* The first thing that entry() calls. */
void fiber_arrived(fiber *f);

/* ------------------------------------------------------------------------------------------------- block.cpp */

enum thread_state { UNSTARTED, READY, AT_BARRIER, IN_WARP, EXITED };

struct pending_copy {
    char *to;
    unsigned char bytes[16];
};

struct thread {
    uint3 index;
    int number; /* in its block */
    thread_state state;
    fiber *on;
    cuda_emulator_site site; /* where it waits */
    const char *waits_for;
    unsigned mask;
    uint64_t bits, result;
    const void *operand[3];
    bool unfenced; /* it stored to device memory after its last __threadfence */
    std::vector<pending_copy> copies;
    std::vector<size_t> groups; /* how many of `copies` were there at each commit */
};

struct warp {
    unsigned waiting; /* lanes */
    uint32_t epoch;   /* how many __syncwarp it passed */
};

struct block_state {
    const char *kernel;
    uint64_t launch; /* serial number */
    uint32_t block;  /* serial number over all launches */
    uint32_t epoch;  /* serial number of the stretch between two barriers, over all launches */
    int threads, exited, at_barrier;
    thread *all;
    warp *warps;
    thread *now; /* NULL: the host runs */
    bool checks; /* SAGAN_EMULATOR_CHECK=0: loads and stores are not looked at */
    bool tensor_cores;
};
extern block_state block;

/* Runs a grid; false if a fault was reported. */
bool run_grid(const char *kernel, dim3 grid, dim3 threads, size_t dynamic, const std::function<void()> &body);

/* Waits until every lane of `mask` has come to `what`, then the last one calls meet(warp's threads, mask). */
void warp_meet(unsigned mask, const char *what, cuda_emulator_site at, void (*meet)(thread *lanes, unsigned mask));

/* Hands the words to the test's hook, or prints them and aborts. runtime.cpp */
void deliver(const char *message);

/* Reports a fault of the running kernel and leaves it. */
[[noreturn]] void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ------------------------------------------------------------------------------------------------- memory.cpp */

constexpr size_t SHARED_BYTES = (size_t)227 << 10; /* of a block: what sm_90 allows */

char *device_alloc(size_t bytes);
bool device_free(void *p);
/* The device may be touched by the host only between these: a stray access from a test would fault on a real card too. */
void memory_open();
void memory_close();
bool in_allocation(const void *p, size_t bytes);
/* "12 bytes past the end of an allocation of 400 bytes" */
const char *describe(const void *p, char *buffer, size_t size);
extern char *shared_base;
void shared_begin_launch(size_t dynamic);
void shared_begin_block();
void shared_end_launch();
size_t device_total();
size_t device_used();
extern int64_t allocations, live_allocations;

/* ------------------------------------------------------------------------------------------------- checker.cpp */

/* A kernel's access to shared memory that the instrumentation cannot see. */
void check_access(const volatile void *p, size_t bytes, bool write, bool atomic);
/* Shared bytes that a cp.async will write: nobody may touch them until it is waited for. */
void checker_pending(char *at, size_t bytes, bool pending);

} // namespace emulator

/* Work of a library on a stream; the card's memory is open to it. runtime.cpp */
cudaError_t cuda_emulator_enqueue(cudaStream_t stream, std::function<void()> work);

#endif
