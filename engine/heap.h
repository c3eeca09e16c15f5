/* heap.h - large device blocks side by side in a few long segments (heap.c). */
#ifndef SAG_HEAP_H
#define SAG_HEAP_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/kernel_table.h"

/* A block in use. It is a member of what owns it; the gaps between blocks have no header of their own. */
typedef struct sag_heap_block {
    struct sag_heap_block *before, *after; /* neighbours in use, by address; NULL at the ends */
    char *data;
    size_t size;
    int segment;
} sag_heap_block;

typedef struct sag_heap_segment {
    char *data; /* NULL: none */
    size_t size;
    size_t used;    /* bytes of blocks */
    size_t touched; /* bytes from the start that ever belonged to a block: what may be resident */
    sag_heap_block *first, *last;
} sag_heap_segment;

/* Each segment is twice as long as the one before or more, so that this many hold anything. */
#define SAG_HEAP_SEGMENTS 24

typedef struct sag_heap {
    sag_heap_segment segment[SAG_HEAP_SEGMENTS];
    size_t grow; /* least size of the first segment */
    bool lazy;   /* host memory: a page is committed when it is first touched */
    bool replayed; /* a graph writes again to blocks that were given back: no sanitizer is to object */
} sag_heap;

void sag_heap_init(sag_heap *h, bool lazy);
/* Where `b` of b->size bytes goes: into the smallest gap, else behind the last block. False: a segment has to be added.
 */
bool sag_heap_place(sag_heap *h, sag_heap_block *b);
void sag_heap_remove(sag_heap *h, sag_heap_block *b);
/* Adds a segment for b and places it there. False if the device has no such memory. */
bool sag_heap_grow(sag_heap *h, sag_heap_block *b, const sag_backend *backend, void *state);
/* Gives back the segments that hold no block, and of the others, where pages are committed lazily, what no block
 * touches. */
void sag_heap_trim(sag_heap *h, const sag_backend *backend, void *state);
/* Bytes held that are in no block. */
size_t sag_heap_idle(const sag_heap *h);

#endif
