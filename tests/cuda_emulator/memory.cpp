/*
 * memory.cpp - the card's memory: one range of addresses, so that a glance at a pointer tells what it is, with a gap
 * behind each allocation. A shadow byte for each 8 bytes says how many of them are allocated. A block's shared memory
 * is the start of the range, its arrays with gaps between them too.
 *
 * New memory is full of 0xff: NaN as f32 and bf16, -1 as i32; what nobody wrote shows in results.
 */
#include "tests/cuda_emulator/emulator.h"

#include <map>
#include <stdio.h>
#include <sys/mman.h>

namespace emulator {

static const size_t GAP = 256, SHARED_SPACE = (size_t)1 << 20, LARGEST_FILL = (size_t)8 << 20, QUARANTINE = (size_t)2 << 20;

char *device_base, *shared_base;
size_t space;                /* bytes from device_base, shared memory included */
unsigned char *shadow;       /* of space / 8 */
int64_t allocations, live_allocations;

static size_t total, used, high; /* bytes of the card; allocated; ever touched from device_base */
static std::map<char *, size_t> live, gaps; /* gaps: free ranges */
static std::deque<std::pair<char *, size_t>> resting; /* freed a short while ago: a late access still meets nothing */
static size_t resting_bytes;
static int opened;
static bool protects;

static size_t with_gap(size_t bytes)
{
    return (bytes + GAP + 255) & ~(size_t)255;
}

static void reserve()
{
    if (device_base) return;
    const char *asked = getenv("SAGAN_EMULATOR_MEMORY"); /* MiB */
    total = (size_t)(asked && *asked ? strtoull(asked, nullptr, 10) : 16384) << 20;
    space = total + total / 2 + SHARED_SPACE; /* gaps take some */
    void *p = mmap(nullptr, space, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void *s = mmap(nullptr, space / 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || s == MAP_FAILED) {
        fprintf(stderr, "cuda emulator: cannot reserve %zu bytes of addresses\n", space);
        abort();
    }
    device_base = (char *)p;
    shadow = (unsigned char *)s;
    shared_base = device_base;
    high = SHARED_SPACE;
    gaps[device_base + SHARED_SPACE] = space - SHARED_SPACE;
    const char *asked_to = getenv("SAGAN_EMULATOR_PROTECT");
    protects = asked_to && strcmp(asked_to, "1") == 0;
    if (protects) mprotect(device_base, high, PROT_NONE);
}

/* SAGAN_EMULATOR_PROTECT=1: the host may touch the card's memory only here and there; see emulator.h. It takes time. */
void memory_open()
{
    reserve();
    if (protects && opened++ == 0) mprotect(device_base, high, PROT_READ | PROT_WRITE);
}
void memory_close()
{
    if (protects && --opened == 0) mprotect(device_base, high, PROT_NONE);
}

static void mark(char *p, size_t bytes, bool valid)
{
    unsigned char *s = shadow + (p - device_base) / 8;
    memset(s, valid ? 8 : 0, bytes / 8);
    if (bytes % 8) s[bytes / 8] = (unsigned char)(valid ? bytes % 8 : 0);
}

char *device_alloc(size_t bytes)
{
    reserve();
    size_t need = with_gap(bytes);
    if (need < bytes || bytes > total - used) return nullptr;
    auto g = gaps.begin();
    while (g != gaps.end() && g->second < need) ++g;
    if (g == gaps.end()) return nullptr;
    char *p = g->first;
    size_t left = g->second - need;
    gaps.erase(g);
    if (left) gaps[p + need] = left;
    memory_open();
    if ((size_t)(p - device_base) + need > high) {
        high = (size_t)(p - device_base) + need;
        if (protects) mprotect(device_base, high, PROT_READ | PROT_WRITE);
    }
    ASAN_UNPOISON_MEMORY_REGION(p, need);
    if (bytes <= LARGEST_FILL) memset(p, 0xff, bytes);
    ASAN_POISON_MEMORY_REGION(p + bytes, need - bytes);
    memory_close();
    mark(p, bytes, true);
    live[p] = bytes;
    used += bytes;
    allocations++;
    live_allocations++;
    return p;
}

static void give_back(char *p, size_t bytes)
{
    auto after = gaps.lower_bound(p);
    if (after != gaps.end() && p + bytes == after->first) {
        bytes += after->second;
        after = gaps.erase(after);
    }
    if (after != gaps.begin()) {
        auto before = std::prev(after);
        if (before->first + before->second == p) {
            before->second += bytes;
            return;
        }
    }
    gaps[p] = bytes;
}

bool device_free(void *q)
{
    char *p = (char *)q;
    auto it = live.find(p);
    if (it == live.end()) return false;
    size_t bytes = it->second, whole = with_gap(bytes);
    live.erase(it);
    mark(p, bytes, false);
    ASAN_POISON_MEMORY_REGION(p, bytes);
    used -= bytes;
    live_allocations--;
    if (bytes > LARGEST_FILL) madvise((void *)(((uintptr_t)p + 4095) & ~(uintptr_t)4095), (whole - 4096) & ~(size_t)4095, MADV_DONTNEED);
    resting.push_back({p, whole});
    resting_bytes += whole;
    while (resting_bytes > QUARANTINE) {
        resting_bytes -= resting.front().second;
        give_back(resting.front().first, resting.front().second);
        resting.pop_front();
    }
    return true;
}

size_t device_total()
{
    reserve();
    return total;
}
size_t device_used()
{
    return used;
}

bool in_allocation(const void *p, size_t bytes)
{
    auto it = live.upper_bound((char *)p);
    if (it == live.begin()) return false;
    --it;
    return (const char *)p + bytes <= it->first + it->second;
}

/* ------------------------------------------------------------------------------------------------- shared */

struct shared_array {
    char *at;
    size_t bytes;
    const char *name;
};
static std::vector<shared_array> arrays; /* of this launch */
static size_t shared_used, shared_asked;

static char *add_array(size_t bytes, const char *name)
{
    char *at = shared_base + shared_used;
    shared_asked += (bytes + 15) & ~(size_t)15;
    shared_used += (bytes + GAP + 127) & ~(size_t)127;
    if (shared_asked > SHARED_BYTES) fault("%zu bytes of shared memory; a block has %zu", shared_asked, SHARED_BYTES);
    arrays.push_back({at, bytes, name});
    ASAN_UNPOISON_MEMORY_REGION(at, bytes);
    memset(at, 0xff, bytes);
    mark(at, bytes, true);
    return at;
}

void shared_begin_launch(size_t dynamic)
{
    reserve();
    arrays.clear();
    shared_used = shared_asked = 0;
    add_array(dynamic, "the dynamic array");
}

void shared_begin_block()
{
    for (const shared_array &a : arrays) memset(a.at, 0xff, a.bytes);
}

void shared_end_launch()
{
    for (const shared_array &a : arrays) {
        mark(a.at, a.bytes, false);
        ASAN_POISON_MEMORY_REGION(a.at, a.bytes);
    }
}

/* ------------------------------------------------------------------------------------------------- words */

const char *describe(const void *q, char *text, size_t size)
{
    const char *p = (const char *)q;
    if (p >= shared_base && p < shared_base + SHARED_SPACE) {
        const shared_array *nearest = nullptr;
        for (const shared_array &a : arrays) {
            if (a.at <= p) nearest = &a;
        }
        if (!nearest) {
            snprintf(text, size, "shared memory of no array");
        } else if (p < nearest->at + nearest->bytes) {
            snprintf(text, size, "byte %td of shared %s (%zu bytes)", p - nearest->at, nearest->name, nearest->bytes);
        } else {
            snprintf(text, size, "%td bytes past the end of shared %s (%zu bytes)", p - nearest->at - (ptrdiff_t)nearest->bytes,
                     nearest->name, nearest->bytes);
        }
        return text;
    }
    auto after = live.upper_bound((char *)p);
    auto before = after == live.begin() ? live.end() : std::prev(after);
    size_t from_before = before == live.end() ? SIZE_MAX : (size_t)(p - before->first);
    size_t to_after = after == live.end() ? SIZE_MAX : (size_t)(after->first - p);
    if (before != live.end() && from_before < before->second) {
        snprintf(text, size, "byte %zu of an allocation of %zu bytes", from_before, before->second);
    } else if (before != live.end() && from_before - before->second <= to_after) {
        snprintf(text, size, "%zu bytes past the end of an allocation of %zu bytes", from_before - before->second, before->second);
    } else if (after != live.end()) {
        snprintf(text, size, "%zu bytes before an allocation of %zu bytes", to_after, after->second);
    } else {
        snprintf(text, size, "memory that is not allocated");
    }
    return text;
}

} // namespace emulator

using namespace emulator;

void *cuda_emulator_shared(cuda_emulator_slot *slot, const char *name, size_t bytes)
{
    if (slot->launch != block.launch) {
        slot->launch = block.launch;
        slot->at = add_array(bytes, name);
    }
    return slot->at;
}

void *cuda_emulator_dynamic_shared()
{
    return shared_base;
}

int cuda_emulator_swap(void *p, void *old, const void *value, size_t bytes)
{
    if (value) {
        memcpy(p, value, bytes);
    } else {
        memcpy(old, p, bytes);
    }
    return 0;
}
