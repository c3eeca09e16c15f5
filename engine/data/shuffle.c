/*
 * shuffle.c - the order of images within an epoch: Fisher-Yates with Philox numbers at (seed, epoch, place), so it is
 * the same on every machine and any epoch can be had without the ones before it.
 */
#include "engine/data/dataset_internal.h"
#include "kernels/philox.h"

uint64_t sag_data_random(uint64_t seed, sag_data_stream stream, uint64_t major, uint64_t minor)
{
    /* counter (block, stream, clock), as the random ops; the stream's name keeps these numbers apart from theirs */
    sag_philox_block b = sag_philox((uint32_t)minor, 0xda7a0000u | (uint32_t)stream, (uint32_t)major,
                                    (uint32_t)(major >> 32), (uint32_t)seed, (uint32_t)(seed >> 32));
    return (uint64_t)b.w0 << 32 | b.w1;
}

void sag_shuffle_epoch(uint64_t seed, int64_t epoch, int64_t n, int32_t *order)
{
    for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        uint64_t u = sag_data_random(seed, SAG_DATA_SHUFFLE, (uint64_t)epoch, (uint64_t)i);
        /* high product: bias below n / 2^64 */
        int64_t j = (int64_t)((unsigned __int128)u * (uint64_t)(i + 1) >> 64);
        int32_t t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}
