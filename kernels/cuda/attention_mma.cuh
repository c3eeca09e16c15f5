/*
 * attention_mma.cuh - fragments of the tensor cores' products for bf16 (m16n8k16) and for f32 as tf32 (m16n8k8), under the
 * same names, so that one kernel serves both. A tile in shared memory has rows of `stride` elements, an odd multiple of 16
 * bytes: eight rows then lie in different banks.
 *
 *   a(r, p, stride)        A {16,STEP} from rows of A, p at its corner
 *   b_rows(r, p, stride)   B {STEP,16} as two fragments, from rows of B^T (the depth runs along a row)
 *   b_cols(r, p, stride)   the same from rows of B (the depth runs down)
 *   from_sums(r, s, k)     A from sums: columns STEP k and on of a product's fragments s
 *   rest_of_sums           bf16: what the rounding there left
 */
#ifndef SAG_CUDA_ATTENTION_MMA_CUH
#define SAG_CUDA_ATTENTION_MMA_CUH

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/mma.cuh"

template <typename T> struct fragment;

template <> struct fragment<cuda_bf16> {
    static constexpr int STEP = 16, PAD = 8, WIDTH = 8; /* WIDTH: elements in 16 bytes */

    __device__ static inline void a(uint32_t (&r)[4], const cuda_bf16 *p, int stride)
    {
        const int lane = (int)threadIdx.x & 31;
        ldmatrix_x4(r, p + (lane & 15) * stride + (lane >> 4) * 8);
    }
    __device__ static inline void b_rows(uint32_t (&r)[2][2], const cuda_bf16 *p, int stride)
    {
        const int lane = (int)threadIdx.x & 31;
        uint32_t q[4];
        ldmatrix_x4(q, p + ((lane & 7) + (lane >> 4) * 8) * stride + (lane >> 3 & 1) * 8);
        r[0][0] = q[0], r[0][1] = q[1], r[1][0] = q[2], r[1][1] = q[3];
    }
    __device__ static inline void b_cols(uint32_t (&r)[2][2], const cuda_bf16 *p, int stride)
    {
        const int lane = (int)threadIdx.x & 31;
        uint32_t q[4];
        ldmatrix_x4_trans(q, p + (lane & 15) * stride + (lane >> 4) * 8);
        r[0][0] = q[0], r[0][1] = q[1], r[1][0] = q[2], r[1][1] = q[3];
    }
    template <int N> __device__ static inline void from_sums(uint32_t (&r)[4], const float (&s)[N][4], int k)
    {
        r[0] = pack_bf16(s[2 * k][0], s[2 * k][1]);
        r[1] = pack_bf16(s[2 * k][2], s[2 * k][3]);
        r[2] = pack_bf16(s[2 * k + 1][0], s[2 * k + 1][1]);
        r[3] = pack_bf16(s[2 * k + 1][2], s[2 * k + 1][3]);
    }
    /* The same of what rounding to r left: with it A has 16 bits. */
    template <int N> __device__ static inline void rest_of_sums(uint32_t (&rest)[4], const uint32_t (&r)[4], const float (&s)[N][4], int k)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int n = 2 * k + i / 2, c = i % 2 * 2;
            float low, high;
            const uint32_t low_bits = r[i] << 16, high_bits = r[i] & 0xffff0000u;
            memcpy(&low, &low_bits, sizeof low);
            memcpy(&high, &high_bits, sizeof high);
            rest[i] = pack_bf16(s[n][c] - low, s[n][c + 1] - high);
        }
    }
    __device__ static inline void product(float (&d)[4], const uint32_t (&x)[4], const uint32_t (&y)[2])
    {
        mma_bf16_16816(d, x, y);
    }
};

/* from_sums and b_cols count the depth in another order than the instruction: its k = t is 2 t, its t + 4 is 2 t + 1, which is
 * how sums lie in registers. A sum does not mind, as both operands do it. */
template <> struct fragment<float> {
    static constexpr int STEP = 8, PAD = 4, WIDTH = 4;

    __device__ static inline void a(uint32_t (&r)[4], const float *p, int stride)
    {
        const int g = ((int)threadIdx.x & 31) >> 2, t = (int)threadIdx.x & 3;
        p += g * stride + t;
        r[0] = to_tf32(p[0]), r[1] = to_tf32(p[8 * stride]), r[2] = to_tf32(p[4]), r[3] = to_tf32(p[8 * stride + 4]);
    }
    __device__ static inline void b_rows(uint32_t (&r)[2][2], const float *p, int stride)
    {
        const int g = ((int)threadIdx.x & 31) >> 2, t = (int)threadIdx.x & 3;
        p += g * stride + t;
        r[0][0] = to_tf32(p[0]), r[0][1] = to_tf32(p[4]);
        r[1][0] = to_tf32(p[8 * stride]), r[1][1] = to_tf32(p[8 * stride + 4]);
    }
    __device__ static inline void b_cols(uint32_t (&r)[2][2], const float *p, int stride)
    {
        const int g = ((int)threadIdx.x & 31) >> 2, t = (int)threadIdx.x & 3;
        p += 2 * t * stride + g;
        r[0][0] = to_tf32(p[0]), r[0][1] = to_tf32(p[stride]);
        r[1][0] = to_tf32(p[8]), r[1][1] = to_tf32(p[stride + 8]);
    }
    template <int N> __device__ static inline void from_sums(uint32_t (&r)[4], const float (&s)[N][4], int k)
    {
        r[0] = to_tf32(s[k][0]), r[1] = to_tf32(s[k][2]), r[2] = to_tf32(s[k][1]), r[3] = to_tf32(s[k][3]);
    }
    __device__ static inline void product(float (&d)[4], const uint32_t (&x)[4], const uint32_t (&y)[2])
    {
        mma_tf32_1688(d, x, y);
    }
};

/*
 * rows x cols elements of a matrix with rows of `ld` to a tile, zeros where the matrix ends (`rows_left`, `cols_left`); cols a
 * multiple of 16. By asynchronous copies where `aligned` (16 bytes: base, ld and cols_left): commit and wait are the caller's.
 */
template <typename T>
__device__ static inline void mma_load(T *to, int stride, const T *from, int64_t ld, int64_t rows_left, int64_t cols_left, int rows,
                                       int cols, bool aligned)
{
    if (aligned) {
        const int chunks = cols / fragment<T>::WIDTH;
        for (int i = (int)threadIdx.x; i < rows * chunks; i += (int)blockDim.x) {
            const int r = i / chunks, c = i % chunks * fragment<T>::WIDTH;
            const bool valid = r < rows_left && c < cols_left;
            cp_async_16(to + r * stride + c, valid ? from + r * ld + c : from, valid);
        }
    } else {
        for (int i = (int)threadIdx.x; i < rows * cols; i += (int)blockDim.x) {
            const int r = i / cols, c = i % cols;
            if (r < rows_left && c < cols_left)
                to[r * stride + c] = from[r * ld + c];
            else
                cuda_store(to + r * stride + c, 0.0f);
        }
    }
}

#endif
