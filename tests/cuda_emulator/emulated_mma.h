/* emulated_mma.h - kernels/cuda/mma.cuh's instructions for the emulator; the fragments are laid out as the PTX ISA says. */
#ifndef SAG_CUDA_EMULATED_MMA_H
#define SAG_CUDA_EMULATED_MMA_H

enum cuda_emulator_mma { CUDA_EMULATOR_BF16_16816, CUDA_EMULATOR_TF32_1688 };
void cuda_emulator_product(cuda_emulator_mma kind, float *d, const uint32_t *a, const uint32_t *b, cuda_emulator_site at);
void cuda_emulator_ldmatrix(uint32_t *r, const void *row, bool transposed, cuda_emulator_site at);
void cuda_emulator_cp_async(void *shared, const void *global, bool valid);
void cuda_emulator_cp_commit();
void cuda_emulator_cp_wait(int pending);

static inline void mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], CUDA_EMULATOR_HERE)
{
    cuda_emulator_product(CUDA_EMULATOR_BF16_16816, d, a, b, CUDA_EMULATOR_SITE);
}
static inline void mma_tf32_1688(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], CUDA_EMULATOR_HERE)
{
    cuda_emulator_product(CUDA_EMULATOR_TF32_1688, d, a, b, CUDA_EMULATOR_SITE);
}
/* To nearest, ties away: half of the last place that stays is added to the magnitude. */
static inline uint32_t to_tf32(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & 0xffffe000u;
}
static inline uint32_t relu_bf16x2(uint32_t x)
{
    const uint32_t low = x & 0xffffu, high = x >> 16;
    return (low > 0x8000u && low <= 0xff80u ? 0 : low) | (high > 0x8000u && high <= 0xff80u ? 0 : high) << 16;
}
static inline uint32_t pack_bf16(float low, float high)
{
    cuda_bf16 l, h;
    cuda_store(&l, low);
    cuda_store(&h, high);
    return (uint32_t)l.bits | (uint32_t)h.bits << 16;
}
static inline void ldmatrix_x4(uint32_t (&r)[4], const void *row, CUDA_EMULATOR_HERE)
{
    cuda_emulator_ldmatrix(r, row, false, CUDA_EMULATOR_SITE);
}
static inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row, CUDA_EMULATOR_HERE)
{
    cuda_emulator_ldmatrix(r, row, true, CUDA_EMULATOR_SITE);
}
static inline void cp_async_16(void *shared, const void *global, bool valid)
{
    cuda_emulator_cp_async(shared, global, valid);
}
static inline void cp_async_commit()
{
    cuda_emulator_cp_commit();
}
template <int pending> static inline void cp_async_wait()
{
    cuda_emulator_cp_wait(pending);
}

#endif
