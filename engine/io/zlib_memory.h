/* zlib_memory.h - zlib's memory from the engine's allocator, so that tests count it and can make it fail. */
#ifndef SAG_ZLIB_MEMORY_H
#define SAG_ZLIB_MEMORY_H

#include "engine/sagan.h"

static inline void *sag_zlib_alloc(void *opaque, unsigned count, unsigned size)
{
    (void)opaque;
    return sag_host_alloc((size_t)count * size);
}

static inline void sag_zlib_free(void *opaque, void *p)
{
    (void)opaque;
    sag_host_free(p);
}

#endif
