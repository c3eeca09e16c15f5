/*
 * checker.cpp - sees every load and store of the kernels. They are compiled with the thread sanitizer's
 * instrumentation, which calls __tsan_read4(address) and so on; the functions that it calls are these, not libtsan's.
 *
 * Device memory: the access must lie in an allocation. Shared memory: it must lie in an array, a load must find what was
 * stored by this block, and two threads of which one stores must have a barrier between them (__syncthreads, or
 * __syncwarp within a warp; shuffles and votes order no memory). A cp.async's destination belongs to it until its wait.
 * Between blocks: where one counts itself by atomicInc, its threads' stores to device memory must be behind a __threadfence.
 *
 * The record of shared memory is one cell for each 4 bytes: the last store, and two of the loads since then. Two suffice:
 * a store by any one thread conflicts with at least one of two loads by different warps. Where threads store parts of
 * one cell (bf16), only the last of them is known.
 */
#include "tests/cuda_emulator/emulator.h"

namespace emulator {

extern char *device_base;
extern size_t space;
extern unsigned char *shadow;

struct access {
    uint32_t epoch; /* of the block: block.epoch at the time; 0: none */
    uint32_t warp_epoch;
    int16_t thread;
    uint8_t bytes; /* which of the four */
    bool atomic;
};
struct cell {
    access store, load[2];
    uint32_t written_in; /* block serial number */
    uint8_t written;     /* which of the four bytes */
    uint8_t pending;
};

static const size_t SHARED_CELLS = ((size_t)1 << 20) / 4;
static cell *cells;

static cell *cell_of(const volatile void *p)
{
    if (!cells) cells = (cell *)calloc(SHARED_CELLS, sizeof *cells);
    return &cells[(size_t)((const char *)p - shared_base) / 4];
}

static bool conflict(const access &before, const access &now)
{
    if (before.epoch != now.epoch || before.thread == now.thread || !(before.bytes & now.bytes) || (before.atomic && now.atomic)) return false;
    return before.thread / 32 != now.thread / 32 || before.warp_epoch >= now.warp_epoch;
}

static void race(const char *p, const access &before, const char *first, const char *second)
{
    char what[200];
    fault("race on %s: %s of thread %d and %s of this thread have no barrier between them", describe(p, what, sizeof what), first,
          before.thread, second);
}

static bool same(const access &a, const access &b)
{
    return a.thread == b.thread && a.epoch == b.epoch && a.warp_epoch == b.warp_epoch && a.bytes == b.bytes;
}

static void remember_load(cell *c, const access &a)
{
    access *slot = nullptr;
    for (access &l : c->load) {
        if (l.epoch == a.epoch && l.thread == a.thread) slot = &l;
    }
    for (access &l : c->load) {
        if (!slot && l.epoch != a.epoch) slot = &l;
    }
    const int w = a.thread / 32;
    if (!slot && c->load[0].thread / 32 == c->load[1].thread / 32 && c->load[0].thread / 32 != w) slot = &c->load[1];
    for (access &l : c->load) {
        if (!slot && l.thread / 32 == w && l.warp_epoch < a.warp_epoch) slot = &l;
    }
    if (slot) *slot = a;
}

static void check_cell(cell *c, const char *at, const access &now, bool write)
{
    char what[200];
    if (c->pending & now.bytes) fault("%s is the destination of a cp.async that was not waited for", describe(at, what, sizeof what));
    if (c->written_in != block.block) {
        c->written_in = block.block;
        c->written = 0;
    }
    if (!write) {
        /* What most loads are: stored before the last barrier, and loaded by two other warps already. */
        const access &a = c->load[0], &b = c->load[1];
        if (c->store.epoch != now.epoch && (c->written & a.bytes & b.bytes & now.bytes) == now.bytes && a.epoch == now.epoch &&
            b.epoch == now.epoch && (unsigned)a.thread / 32 != (unsigned)b.thread / 32) {
            return;
        }
        if (same(c->load[0], now) || same(c->load[1], now)) return; /* nothing was stored since */
        if ((c->written & now.bytes) != now.bytes) fault("a load of %s, which this block has not stored", describe(at, what, sizeof what));
        if (conflict(c->store, now)) race(at, c->store, "the store", "the load");
        remember_load(c, now);
        return;
    }
    if (conflict(c->store, now)) race(at, c->store, "the store", "the store");
    for (access &l : c->load) {
        if (conflict(l, now)) race(at, l, "the load", "the store");
        l.epoch = 0;
    }
    c->store = now;
    c->written |= now.bytes;
}

static void check_shared(const volatile void *p, size_t bytes, bool write, bool atomic)
{
    const thread &t = *block.now;
    access now = {block.epoch, block.warps[t.number / 32].epoch, (int16_t)t.number, 15, atomic};
    const char *at = (const char *)p, *end = at + bytes;
    while (at < end) {
        const size_t within = (size_t)(at - shared_base) & 3;
        const size_t n = (size_t)(end - at) < 4 - within ? (size_t)(end - at) : 4 - within;
        now.bytes = (uint8_t)(((1u << n) - 1) << within);
        check_cell(cell_of(at), at, now, write);
        at += n;
    }
}

static void check_device(const volatile void *p, size_t bytes, bool write)
{
    const size_t first = (size_t)((const char *)p - device_base), last = first + bytes - 1;
    const bool ok = shadow[last / 8] > last % 8 && shadow[first / 8] > first % 8;
    if (ok) return;
    char what[200];
    const char *bad = (const char *)p;
    while (shadow[(size_t)(bad - device_base) / 8] > (size_t)(bad - device_base) % 8) bad++;
    fault("a %s of %zu bytes reaches %s", write ? "store" : "load", bytes, describe(bad, what, sizeof what));
}

void check_access(const volatile void *p, size_t bytes, bool write, bool atomic)
{
    if (EMULATOR_ASAN || !block.now || !block.checks) return;
    if ((size_t)((const char *)p - device_base) >= space) return;
    check_device(p, bytes, write);
    if ((size_t)((const char *)p - shared_base) < ((size_t)1 << 20)) check_shared(p, bytes, write, atomic);
    else if (write && !atomic) block.now->unfenced = true;
}

void checker_pending(char *at, size_t bytes, bool pending)
{
    if (EMULATOR_ASAN) return;
    for (size_t i = 0; i < bytes; i += 4) cell_of(at + i)->pending = pending ? 15 : 0;
}

} // namespace emulator

using namespace emulator;

void cuda_emulator_atomic(const volatile void *p, size_t bytes)
{
    if ((uintptr_t)p % bytes) fault("an atomic of %zu bytes at an address that is not a multiple of it", bytes);
    check_access(p, bytes, true, true);
}

void cuda_emulator_fence()
{
    block.now->unfenced = false;
}

void cuda_emulator_arrival()
{
    for (int i = 0; i < block.threads; i++)
        if (block.all[i].unfenced) fault("a block is counted before a __threadfence behind the stores of thread %d", i);
}

#if EMULATOR_ASAN
int cuda_emulator_checks(void)
{
    return 0;
}
#else
int cuda_emulator_checks(void)
{
    return 1;
}

/* One look tells that an address is the host's: a local variable, an argument. */
static inline void see(const void *p, size_t bytes, bool write)
{
    if (block.checks && (size_t)((const char *)p - device_base) < space) check_access(p, bytes, write, false);
}

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
#define SEES(n)                                                                     \
    void __tsan_read##n(void *p) { see(p, n, false); }                              \
    void __tsan_write##n(void *p) { see(p, n, true); }                              \
    void __tsan_unaligned_read##n(void *p) { see(p, n, false); }                    \
    void __tsan_unaligned_write##n(void *p) { see(p, n, true); }                    \
    void __tsan_volatile_read##n(void *p) { see(p, n, false); }                     \
    void __tsan_volatile_write##n(void *p) { see(p, n, true); }                     \
    void __tsan_unaligned_volatile_read##n(void *p) { see(p, n, false); }           \
    void __tsan_unaligned_volatile_write##n(void *p) { see(p, n, true); }
SEES(1)
SEES(2)
SEES(4)
SEES(8)
SEES(16)
void __tsan_read_range(void *p, long n) { see(p, (size_t)n, false); }
void __tsan_write_range(void *p, long n) { see(p, (size_t)n, true); }
void __tsan_vptr_update(void *, void *) {}
void __tsan_vptr_read(void *) {}
}

/* -fsanitize=alignment: a float4 at an address that is not a multiple of 16 is a fault on the card. */
struct type_mismatch {
    const char *file;
    uint32_t line, column;
    void *type;
    unsigned char log_alignment, kind;
};
extern "C" void __ubsan_handle_type_mismatch_v1(type_mismatch *m, uintptr_t)
{
    if (!block.now) return;
    fault("%s:%u: an access at an address that is not a multiple of %d", m->file, m->line, 1 << m->log_alignment);
}
#endif
