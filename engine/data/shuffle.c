/*
 * shuffle.c - the order of images within an epoch: Fisher-Yates with Philox numbers at (seed, epoch, place), so it is the
 * same on every machine and any epoch can be had without the ones before it.
 */
#include "engine/data/dataset_internal.h"

/* Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). */
static void philox(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    for (int r = 0; r < 10; r++) {
        uint64_t p0 = (uint64_t)c[0] * 0xd2511f53u, p1 = (uint64_t)c[2] * 0xcd9e8d57u;
        uint32_t a = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, b = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)p1;
        c[3] = (uint32_t)p0;
        c[0] = a;
        c[2] = b;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
}

uint64_t sag_data_random(uint64_t seed, sag_data_stream stream, uint64_t major, uint64_t minor)
{
    /* counter (block, stream, clock), as the random ops; the stream's name keeps these numbers apart from theirs */
    uint32_t c[4] = {(uint32_t)minor, 0xda7a0000u | (uint32_t)stream, (uint32_t)major, (uint32_t)(major >> 32)};
    philox(c, (uint32_t)seed, (uint32_t)(seed >> 32));
    return (uint64_t)c[0] << 32 | c[1];
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
