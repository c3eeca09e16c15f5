/*
 * block.cpp - the threads of a block. A fiber runs one thread after another as long as none has to wait; one that waits
 * keeps its fiber, and the next thread gets another. So a kernel without barriers costs a call a thread.
 *
 * Nothing can run any more although threads are left: that is how a barrier that not all reach is seen.
 */
#include "tests/cuda_emulator/emulator.h"

#include <stdarg.h>
#include <stdio.h>

static const uint3 nobody = {0, 0, 0};
const uint3 *cuda_emulator_thread = &nobody;
uint3 cuda_emulator_block;
dim3 cuda_emulator_block_dim, cuda_emulator_grid_dim;

namespace emulator {

block_state block;

static const std::function<void()> *body;
static std::vector<thread> threads;
static std::vector<warp> warps;
static fiber host;
static std::deque<fiber> fibers; /* all of them */
static std::vector<fiber *> idle; /* wait for a thread to start */
static std::deque<thread *> ready;
static int started;
static bool failed;
static bool backwards; /* SAGAN_EMULATOR_ORDER=backwards: the last thread runs first; no result may depend on it */

static void run_threads();

static fiber *take_fiber()
{
    if (idle.empty()) {
        fibers.push_back(fiber{});
        fiber_prepare(&fibers.back(), run_threads);
        return &fibers.back();
    }
    fiber *f = idle.back();
    idle.pop_back();
    return f;
}

static fiber *current; /* fiber */

static void become(thread *t)
{
    block.now = t;
    cuda_emulator_thread = t ? &t->index : &nobody;
}

static void go(fiber *to)
{
    fiber *from = current;
    current = to;
    fiber_switch(from, to);
}

static thread *take_unstarted()
{
    if (started == block.threads) return nullptr;
    int i = started++;
    return &threads[(size_t)(backwards ? block.threads - 1 - i : i)];
}

static thread *take_ready()
{
    if (ready.empty()) return nullptr;
    thread *t = backwards ? ready.back() : ready.front();
    if (backwards) {
        ready.pop_back();
    } else {
        ready.pop_front();
    }
    return t;
}

static void say_where(char *text, size_t size, const thread &t)
{
    snprintf(text, size, "thread %d waits at %s (%s:%d)", t.number, t.waits_for, t.site.file, t.site.line);
}

/* No thread can go on. */
[[noreturn]] static void stuck()
{
    char a[300] = "", b[300] = "";
    const thread *first = nullptr;
    for (const thread &t : threads) {
        if (&t - threads.data() >= block.threads || t.state == EXITED) continue;
        if (!first) {
            first = &t;
            say_where(a, sizeof a, t);
        } else if (t.waits_for != first->waits_for || t.site.line != first->site.line) {
            say_where(b, sizeof b, t);
            break;
        }
    }
    int waiting = block.threads - block.exited;
    fault("a wait that not all threads reach: %d of %d threads wait, %d have ended; %s%s%s", waiting, block.threads, block.exited, a,
          b[0] ? ", " : "", b);
}

/* The running thread cannot go on: another one does. Returns when it can. */
static void park(thread_state state, const char *what, cuda_emulator_site at)
{
    thread *self = block.now;
    self->state = state;
    self->waits_for = what;
    self->site = at;
    self->on = current;
    if (thread *t = take_ready()) {
        become(t);
        go(t->on);
    } else if (started < block.threads) {
        go(take_fiber());
    } else {
        stuck();
    }
    become(self);
}

static void wake(thread *t)
{
    t->state = READY;
    ready.push_back(t);
}

static void run_threads()
{
    fiber_arrived(current);
    for (;;) {
        while (thread *t = take_unstarted()) {
            become(t);
            t->state = READY;
            (*body)();
            block.now->state = EXITED;
            block.exited++;
        }
        if (thread *t = take_ready()) {
            idle.push_back(current);
            become(t);
            go(t->on);
        } else if (block.exited == block.threads) {
            idle.push_back(current);
            go(&host);
        } else {
            become(nullptr);
            stuck();
        }
    }
}

void fault(const char *format, ...)
{
    char words[1200], message[1600];
    va_list ap;
    va_start(ap, format);
    vsnprintf(words, sizeof words, format, ap);
    va_end(ap);
    char who[64] = "";
    if (block.now) snprintf(who, sizeof who, ", thread (%u,%u,%u)", threadIdx.x, threadIdx.y, threadIdx.z);
    snprintf(message, sizeof message, "%s, block (%u,%u,%u)%s: %s", block.kernel, blockIdx.x, blockIdx.y, blockIdx.z, who, words);
    deliver(message);
    failed = true;
    become(nullptr);
    go(&host);
    abort(); /* an abandoned fiber is never gone back to */
}

static void run_block()
{
    started = 0;
    block.exited = block.at_barrier = 0;
    block.block++;
    block.epoch++;
    for (int i = 0; i < block.threads; i++) {
        thread &t = threads[(size_t)i];
        t.state = UNSTARTED;
        for (const pending_copy &c : t.copies) checker_pending(c.to, sizeof c.bytes, false);
        t.copies.clear();
        t.groups.clear();
        t.unfenced = false;
    }
    for (warp &w : warps) w.waiting = 0;
    shared_begin_block();
    current = &host;
    go(take_fiber());
    become(nullptr);
}

bool run_grid(const char *kernel, dim3 grid, dim3 size, size_t dynamic, const std::function<void()> &call)
{
    const char *order = getenv("SAGAN_EMULATOR_ORDER");
    backwards = order && strcmp(order, "backwards") == 0;
    const char *check = getenv("SAGAN_EMULATOR_CHECK");
    int major = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    block.checks = !check || strcmp(check, "0") != 0;
    block.tensor_cores = major >= 8;
    block.kernel = kernel;
    block.launch++;
    block.threads = (int)(size.x * size.y * size.z);
    body = &call;
    failed = false;
    cuda_emulator_grid_dim = grid;
    cuda_emulator_block_dim = size;
    if (threads.size() < (size_t)block.threads) threads.resize((size_t)block.threads);
    warps.assign((size_t)(block.threads + 31) / 32, warp{});
    block.all = threads.data();
    block.warps = warps.data();
    for (int i = 0; i < block.threads; i++) {
        unsigned n = (unsigned)i;
        threads[n].number = i;
        threads[n].index = uint3{n % size.x, n / size.x % size.y, n / size.x / size.y};
    }
    shared_begin_launch(dynamic);
    for (unsigned z = 0; z < grid.z && !failed; z++) {
        for (unsigned y = 0; y < grid.y && !failed; y++) {
            for (unsigned x = 0; x < grid.x && !failed; x++) {
                cuda_emulator_block = backwards ? uint3{grid.x - 1 - x, grid.y - 1 - y, grid.z - 1 - z} : uint3{x, y, z};
                run_block();
            }
        }
    }
    shared_end_launch();
    if (failed) { /* fibers stand anywhere in the kernel */
        ready.clear();
        idle.clear();
        for (fiber &f : fibers) {
            fiber_prepare(&f, run_threads);
            idle.push_back(&f);
        }
    }
    return !failed;
}

/* ------------------------------------------------------------------------------------------------- waiting */

void warp_meet(unsigned mask, const char *what, cuda_emulator_site at, void (*meet)(thread *lanes, unsigned mask))
{
    thread *self = block.now;
    const int lane = self->number & 31, first = self->number & ~31;
    thread *lanes = block.all + first;
    warp *w = &block.warps[first / 32];
    if (!(mask >> lane & 1u)) fault("%s (%s:%d): the mask %08x leaves out the calling lane %d", what, at.file, at.line, mask, lane);
    int here = block.threads - first;
    if (here < 32 && mask >> here) {
        fault("%s (%s:%d): the mask %08x names lanes that the block of %d threads does not have", what, at.file, at.line, mask,
              block.threads);
    }
    self->mask = mask;
    w->waiting |= 1u << lane;
    if ((w->waiting & mask) != mask) {
        park(IN_WARP, what, at);
        return;
    }
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1u) || i == lane) continue;
        const thread &t = lanes[i];
        if (t.mask != mask || strcmp(t.waits_for, what) != 0 || t.site.line != at.line || strcmp(t.site.file, at.file) != 0) {
            fault("lanes of a warp meet at different places: lane %d at %s (%s:%d, mask %08x), lane %d at %s (%s:%d, mask %08x)", i,
                  t.waits_for, t.site.file, t.site.line, t.mask, lane, what, at.file, at.line, mask);
        }
    }
    meet(lanes, mask);
    w->waiting &= ~mask;
    for (int i = 0; i < 32; i++) {
        if ((mask >> i & 1u) && i != lane) wake(&lanes[i]);
    }
}

} // namespace emulator

using namespace emulator;

int64_t cuda_emulator_blocks(int64_t most)
{
    const char *fewer = getenv("SAGAN_EMULATOR_BLOCKS");
    const int64_t limit = fewer && *fewer ? atoll(fewer) : most;
    return limit < most ? limit : most;
}

void cuda_emulator_barrier(cuda_emulator_site at)
{
    thread *self = block.now;
    block.at_barrier++;
    if (block.at_barrier < block.threads) {
        park(AT_BARRIER, "__syncthreads", at);
        return;
    }
    for (int i = 0; i < block.threads; i++) {
        const thread &t = block.all[i];
        if (&t != self && (t.site.line != at.line || strcmp(t.site.file, at.file) != 0)) {
            fault("threads of a block meet at different barriers: thread %d at %s:%d, thread %d at %s:%d", t.number, t.site.file, t.site.line,
                  self->number, at.file, at.line);
        }
    }
    block.at_barrier = 0;
    block.epoch++;
    for (int i = 0; i < block.threads; i++) {
        if (&block.all[i] != self) wake(&block.all[i]);
    }
}

void cuda_emulator_syncwarp(unsigned mask, cuda_emulator_site at)
{
    warp_meet(mask, "__syncwarp", at, [](thread *lanes, unsigned) { block.warps[lanes->number / 32].epoch++; });
}

/* bits: the value; operand: kind, argument and width, as each lane gave them. */
namespace {
struct exchange {
    cuda_emulator_exchange kind;
    int argument, width;
};
} // namespace

static void shuffle(thread *lanes, unsigned mask)
{
    uint64_t given[32];
    for (int i = 0; i < 32; i++) given[i] = mask >> i & 1u ? lanes[i].bits : 0;
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1u)) continue;
        const exchange *e = (const exchange *)lanes[i].operand[0];
        const int segment = i & ~(e->width - 1), last = segment + e->width - 1;
        int from = i;
        switch (e->kind) {
        case CUDA_EMULATOR_SHFL: from = segment + (e->argument & (e->width - 1)); break;
        case CUDA_EMULATOR_SHFL_XOR: from = (i ^ e->argument) > last ? i : i ^ e->argument; break;
        case CUDA_EMULATOR_SHFL_UP: from = i - e->argument < segment ? i : i - e->argument; break;
        case CUDA_EMULATOR_SHFL_DOWN: from = i + e->argument > last ? i : i + e->argument; break;
        case CUDA_EMULATOR_BALLOT: break;
        }
        if (!(mask >> from & 1u)) {
            become(&lanes[i]);
            fault("a shuffle reads lane %d, which the mask %08x leaves out", from, mask);
        }
        lanes[i].result = given[from];
    }
}

static void ballot(thread *lanes, unsigned mask)
{
    uint64_t votes = 0;
    for (int i = 0; i < 32; i++) {
        if (mask >> i & 1u) votes |= (lanes[i].bits & 1u) << i;
    }
    for (int i = 0; i < 32; i++) {
        if (mask >> i & 1u) lanes[i].result = votes;
    }
}

uint64_t cuda_emulator_exchange_bits(cuda_emulator_exchange kind, unsigned mask, uint64_t bits, int argument, int width,
                                     cuda_emulator_site at)
{
    static const char *const names[] = {"__shfl_sync", "__shfl_xor_sync", "__shfl_up_sync", "__shfl_down_sync", "a vote"};
    exchange e = {kind, argument, width};
    thread *self = block.now;
    self->bits = bits;
    self->operand[0] = &e;
    warp_meet(mask, names[kind], at, kind == CUDA_EMULATOR_BALLOT ? ballot : shuffle);
    return self->result;
}

void __trap()
{
    fault("__trap was called");
}

float cuda_emulator_add(float a, float b)
{
    return a + b;
}
float cuda_emulator_mul(float a, float b)
{
    return a * b;
}
double cuda_emulator_add(double a, double b)
{
    return a + b;
}
double cuda_emulator_mul(double a, double b)
{
    return a * b;
}
