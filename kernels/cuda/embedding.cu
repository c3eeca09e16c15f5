/*
 * embedding.cu - rows of a table, y[i] = table[index[i]], and dtable[index[i]] += dy[i] in order of i: the bits of the CPU.
 *
 * Forward moves 2 n d elements. Backward: a block owns one row of the table and 128 of its columns; it looks through the
 * index for its row, 128 places at a time, and adds what it finds in order: no two blocks write one place, so no atomics.
 * Reads v ceil(d / 128) n words of the index (from the caches) and n d elements of dy, writes v d. An index outside the table is
 * skipped: its row of y is 0, its dy goes nowhere.
 */
#include "kernels/cuda/elementwise.cuh"

enum { COLUMNS = 128 };

template <typename T>
__global__ void __launch_bounds__(CUDA_BLOCK) embedding_fwd_kernel(int64_t n, int64_t v, cuda_divisor d, const float *table, const int32_t *index, T *y)
{
    const int64_t total = n * d.d;
    for (int64_t i = (int64_t)blockIdx.x * CUDA_BLOCK + threadIdx.x; i < total; i += (int64_t)gridDim.x * CUDA_BLOCK) {
        int64_t c = i;
        const int64_t row = index[d.split(c)];
        cuda_store(y + i, row >= 0 && row < v ? table[row * d.d + c] : 0.0f);
    }
}

template <typename T>
__global__ void __launch_bounds__(COLUMNS)
    embedding_bwd_kernel(int64_t n, int64_t d, int64_t units, cuda_divisor tiles, const int32_t *index, const T *dy, float *dtable, int accumulate)
{
    CUDA_SHARED(unsigned, found, [COLUMNS / 32]);
    const int t = (int)threadIdx.x, lane = t & 31, warp = t >> 5;
    for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
        int64_t tile = unit;
        const int64_t row = tiles.split(tile), c = tile * COLUMNS + t;
        const bool here = c < d;
        float sum = accumulate && here ? dtable[row * d + c] : 0.0f;
        for (int64_t first = 0; first < n; first += COLUMNS) {
            const unsigned mine = __ballot_sync(0xffffffffu, first + t < n && index[first + t] == row);
            __syncthreads();
            if (lane == 0) found[warp] = mine;
            __syncthreads();
            for (int w = 0; w < COLUMNS / 32; w++) {
                for (unsigned bits = found[w]; bits != 0; bits &= bits - 1) {
                    const int64_t i = first + w * 32 + __ffs((int)bits) - 1;
                    if (here) sum += cuda_float(dy[i * d + c]);
                }
            }
        }
        if (here) dtable[row * d + c] = sum;
    }
}

template <typename T> static int embedding_fwd(sag_kernel_env *env, const embedding_args *a)
{
    const int64_t total = a->n * a->d;
    if (total <= 0) return SAG_KERNEL_OK;
    return CUDA_LAUNCH(env, (embedding_fwd_kernel<T>), cuda_blocks(total, CUDA_BLOCK), CUDA_BLOCK, 0, a->n, a->v, cuda_divisor_of(a->d, total), a->table, a->index, (T *)a->y);
}

template <typename T> static int embedding_bwd(sag_kernel_env *env, const embedding_args *a)
{
    const int64_t tiles = cuda_ceil_div(a->d, COLUMNS), units = a->v * tiles;
    if (units <= 0) return SAG_KERNEL_OK;
    return CUDA_LAUNCH(env, (embedding_bwd_kernel<T>), cuda_blocks(units, 1), COLUMNS, 0, a->n, a->d, units, cuda_divisor_of(tiles, units), a->index, (const T *)a->dy, a->dtable, a->accumulate);
}

static int cuda_embedding_fwd(sag_kernel_env *env, const embedding_args *a)
{
    return CUDA_BY_DTYPE(a->act, embedding_fwd, env, a);
}
static int cuda_embedding_bwd(sag_kernel_env *env, const embedding_args *a)
{
    return CUDA_BY_DTYPE(a->act, embedding_bwd, env, a);
}

CUDA_REGISTER(embedding)
{
    t->embedding_fwd = cuda_embedding_fwd;
    t->embedding_bwd = cuda_embedding_bwd;
}
