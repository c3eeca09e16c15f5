/*
 * heap.c - large device blocks side by side in a few long segments.
 *
 * A block goes into the smallest gap that holds it, so memory that one size no longer needs serves another: the most
 * that is ever held stays near the most that is ever in use. Gaps are what lies between neighbours in use, merged by
 * themselves when a block goes. A walk over the blocks finds the best one: a training step has about a hundred large
 * ones.
 *
 * The CPU commits a page when it is first touched, so there a long segment costs address space alone and one is enough;
 * on other devices a segment is memory.
 */
#include "engine/heap.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define FENCE 64                /* bytes behind each block that nobody may touch */
#define SPACE ((size_t)4 << 20) /* the sanitizer writes a shadow of all of a segment */
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define FENCE 0
#define SPACE ((size_t)4 << 30)
#endif

void sag_heap_init(sag_heap *h, bool lazy)
{
    *h = (sag_heap){.lazy = lazy, .grow = lazy ? SPACE : (size_t)64 << 20}; /* address space alone, or memory */
}

/* Tells the system about the whole pages of `size` bytes each in from..to. Advice: it may be refused. */
static void advise(char *from, char *to, uintptr_t page, int advice)
{
    uintptr_t first = ((uintptr_t)from + page - 1) & ~(page - 1), last = (uintptr_t)to & ~(page - 1);
    if (first < last) (void)madvise((void *)first, last - first, advice);
}

static char *end_of(const sag_heap_block *b)
{
    return b->data + b->size + FENCE;
}

static void insert(sag_heap *h, sag_heap_block *b, int segment, sag_heap_block *before, char *at)
{
    sag_heap_segment *s = &h->segment[segment];
    b->segment = segment;
    b->data = at;
    b->before = before;
    b->after = before ? before->after : s->first;
    *(b->before ? &b->before->after : &s->first) = b;
    *(b->after ? &b->after->before : &s->last) = b;
    s->used += b->size + FENCE;
    size_t end = (size_t)(end_of(b) - s->data);
    if (end > s->touched) s->touched = end;
    if (h->replayed) return;
    ASAN_UNPOISON_MEMORY_REGION(b->data, b->size);
    ASAN_POISON_MEMORY_REGION(b->data + b->size, FENCE);
}

bool sag_heap_place(sag_heap *h, sag_heap_block *b)
{
    size_t need = b->size + FENCE, best = SIZE_MAX;
    sag_heap_block *before = NULL;
    char *at = NULL;
    int where = -1;
    for (int i = 0; i < SAG_HEAP_SEGMENTS && h->segment[i].data; i++) {
        sag_heap_segment *s = &h->segment[i];
        if (s->touched - s->used < need) continue;
        char *start = s->data;
        for (sag_heap_block *next = s->first; next; next = next->after) {
            size_t gap = (size_t)(next->data - start);
            if (gap >= need && gap < best) {
                best = gap;
                before = next->before;
                at = start;
                where = i;
            }
            start = end_of(next);
        }
    }
    for (int i = 0; where < 0 && i < SAG_HEAP_SEGMENTS && h->segment[i].data; i++) {
        sag_heap_segment *s = &h->segment[i];
        size_t used = s->last ? (size_t)(end_of(s->last) - s->data) : 0;
        if (s->size - used < need) continue;
        before = s->last;
        at = s->data + used;
        where = i;
    }
    if (where < 0) return false;
    insert(h, b, where, before, at);
    return true;
}

void sag_heap_remove(sag_heap *h, sag_heap_block *b)
{
    sag_heap_segment *s = &h->segment[b->segment];
    *(b->before ? &b->before->after : &s->first) = b->after;
    *(b->after ? &b->after->before : &s->last) = b->before;
    s->used -= b->size + FENCE;
    if (!h->replayed) ASAN_POISON_MEMORY_REGION(b->data, b->size);
}

bool sag_heap_grow(sag_heap *h, sag_heap_block *b, const sag_backend *backend, void *state)
{
    int i = 0;
    while (i < SAG_HEAP_SEGMENTS && h->segment[i].data) i++;
    if (i == SAG_HEAP_SEGMENTS) return false;
    size_t need = b->size + FENCE, size = need > h->grow << i ? need : h->grow << i;
    char *data = backend->alloc(state, size);
    if (!data && size > need) data = backend->alloc(state, size = need);
    if (!data) return false;
#ifdef MADV_HUGEPAGE
    if (h->lazy)
        advise(data, data + size, (uintptr_t)1 << 21, MADV_HUGEPAGE); /* fewer TLB misses in the matrix products */
#endif
    h->segment[i] = (sag_heap_segment){.data = data, .size = size};
    insert(h, b, i, NULL, data);
    return true;
}

void sag_heap_trim(sag_heap *h, const sag_backend *backend, void *state)
{
    int kept = 0;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < SAG_HEAP_SEGMENTS && h->segment[i].data; i++) {
        sag_heap_segment s = h->segment[i];
        h->segment[i] = (sag_heap_segment){0};
        if (!s.first) {
            ASAN_UNPOISON_MEMORY_REGION(s.data, s.touched);
            backend->free(state, s.data);
            continue;
        }
        char *start = s.data;
        for (sag_heap_block *b = s.first; b; b = b->after) {
            b->segment = kept;
            if (h->lazy) advise(start, b->data, page, MADV_DONTNEED);
            start = end_of(b);
        }
        if (h->lazy) advise(start, s.data + s.touched, page, MADV_DONTNEED);
        s.touched = (size_t)(start - s.data);
        h->segment[kept++] = s;
    }
}

size_t sag_heap_idle(const sag_heap *h)
{
    size_t idle = 0;
    for (int i = 0; i < SAG_HEAP_SEGMENTS && h->segment[i].data; i++)
        idle += h->segment[i].touched - h->segment[i].used;
    return idle;
}
