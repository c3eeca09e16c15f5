/* curand_words.cpp - a block of cuRAND's Philox4_32_10, by the toolkit's device functions compiled for the host. */
#include <cuda_runtime.h>
#include <curand_kernel.h>

/* The generator's words offset .. offset + 3 of a sequence. */
extern "C" void curand_words(unsigned long long seed, unsigned long long sequence, unsigned long long offset, unsigned *words)
{
    curandStatePhilox4_32_10_t state;
    curand_init(seed, sequence, offset, &state);
    const uint4 w = curand4(&state);
    words[0] = w.x, words[1] = w.y, words[2] = w.z, words[3] = w.w;
}
