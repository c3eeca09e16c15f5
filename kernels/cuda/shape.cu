/*
 * shape.cu - moving elements: strided block copies (concat, slice, assign and their gradients) and permutation. Pure movement
 * works for every dtype; adding to the destination is f32 or bf16.
 *
 * Bound by memory: 2 n (adding: 3 n) elements. Blocks move in units as wide as sizes and addresses allow, at most 16 bytes.
 * A permutation that keeps the last dimension moves such units too; one that does not goes through 32 x 32 tiles in shared
 * memory, so that both sides are read and written along their own last dimension.
 */
#include "kernels/cuda/elementwise.cuh"

/* -------------------------------------------------------------------------------------------- block copies */

struct unit16 {
    uint4 w;
};
enum { IN_FLIGHT = 4 };

/* One unit U to another place, or V elements T added there. */
template <typename U> struct move_unit {
    static constexpr int bytes = (int)sizeof(U);
    U u;
    __device__ void load(const char *src, const char *)
    {
        u = *reinterpret_cast<const U *>(src);
    }
    __device__ void store(char *dst) const
    {
        *reinterpret_cast<U *>(dst) = u;
    }
};
template <int V, typename T> struct add_unit {
    static constexpr int bytes = V * (int)sizeof(T);
    T v[V], old[V];
    __device__ void load(const char *src, const char *dst)
    {
        cuda_load_group<V>(v, reinterpret_cast<const T *>(src));
        cuda_load_group<V>(old, reinterpret_cast<const T *>(dst));
    }
    __device__ void store(char *dst) const
    {
        T sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) cuda_store(&sum[i], cuda_float(old[i]) + cuda_float(v[i]));
        cuda_store_group<V>(reinterpret_cast<T *>(dst), sum);
    }
};

struct block_copy {
    const char *src;
    char *dst;
    int64_t units, src_stride, dst_stride; /* units: of all rows */
    cuda_divisor row;                      /* units of a row */
};

template <typename W> __global__ void __launch_bounds__(CUDA_BLOCK) copy_block_kernel(block_copy c)
{
    const int64_t tile = CUDA_BLOCK * IN_FLIGHT;
    for (int64_t first = blockIdx.x * tile + threadIdx.x; first < c.units; first += tile * gridDim.x) {
        W w[IN_FLIGHT];
        char *dst[IN_FLIGHT];
#pragma unroll
        for (int k = 0; k < IN_FLIGHT; k++) {
            int64_t at = first + k * CUDA_BLOCK;
            const bool here = at < c.units;
            const int64_t r = here ? c.row.split(at) : 0;
            dst[k] = here ? c.dst + r * c.dst_stride + at * W::bytes : NULL;
            if (here) w[k].load(c.src + r * c.src_stride + at * W::bytes, dst[k]);
        }
#pragma unroll
        for (int k = 0; k < IN_FLIGHT; k++) {
            if (dst[k]) w[k].store(dst[k]);
        }
    }
}

template <typename W> static int copy_units(sag_kernel_env *env, const copy_block_args *a, int64_t skip, int64_t inner)
{
    const int64_t row = inner / W::bytes, units = a->outer * row;
    if (units <= 0) return SAG_KERNEL_OK;
    const block_copy c = {(const char *)a->src + skip, (char *)a->dst + skip, units, a->src_stride, a->dst_stride, cuda_divisor_of(row, units)};
    return CUDA_LAUNCH(env, (copy_block_kernel<W>), cuda_blocks(units, CUDA_BLOCK * IN_FLIGHT), CUDA_BLOCK, 0, c);
}

/* The widest power of two that divides everything that decides where a unit starts. */
static int64_t unit_of(const copy_block_args *a)
{
    uintptr_t all = (uintptr_t)a->src | (uintptr_t)a->dst | (uintptr_t)a->inner | 16;
    if (a->outer > 1) all |= (uintptr_t)a->src_stride | (uintptr_t)a->dst_stride;
    return (int64_t)(all & (~all + 1));
}

template <typename T> static int add_blocks(sag_kernel_env *env, const copy_block_args *a)
{
    if (unit_of(a) == 16) return copy_units<add_unit<16 / (int)sizeof(T), T>>(env, a, 0, a->inner);
    return copy_units<add_unit<1, T>>(env, a, 0, a->inner);
}

static int cuda_copy_block(sag_kernel_env *env, const copy_block_args *a)
{
    if (a->accumulate) return CUDA_BY_DTYPE(a->act, add_blocks, env, a);
    if (a->outer == 1 && a->inner >= 64 && (((uintptr_t)a->src ^ (uintptr_t)a->dst) & 15) == 0) {
        /* one run: bytes up to a boundary, whole units, the rest */
        const int64_t head = (int64_t)(16 - ((uintptr_t)a->src & 15)) % 16, body = (a->inner - head) / 16 * 16;
        CUDA_TRY(copy_units<move_unit<uint8_t>>(env, a, 0, head));
        CUDA_TRY(copy_units<move_unit<unit16>>(env, a, head, body));
        return copy_units<move_unit<uint8_t>>(env, a, head + body, a->inner - head - body);
    }
    switch (unit_of(a)) {
    case 16: return copy_units<move_unit<unit16>>(env, a, 0, a->inner);
    case 8: return copy_units<move_unit<uint2>>(env, a, 0, a->inner);
    case 4: return copy_units<move_unit<uint32_t>>(env, a, 0, a->inner);
    case 2: return copy_units<move_unit<uint16_t>>(env, a, 0, a->inner);
    default: return copy_units<move_unit<uint8_t>>(env, a, 0, a->inner);
    }
}

/* --------------------------------------------------------------------------------------------- permutation */

/*
 * The permutation after dropping dimensions of 1 and joining those that stay neighbours: y's dimension i has `size[i]`
 * elements that lie `step[i]` apart in x. Always four, padded with 1 in front.
 */
struct moves {
    int64_t size[4], step[4];
};

static moves moves_of(const permute_args *a)
{
    int64_t x_step[4] = {0, 0, 0, 1}, size[4] = {1, 1, 1, 1}, step[4] = {0, 0, 0, 0};
    for (int i = 2; i >= 0; i--) x_step[i] = x_step[i + 1] * a->shape[i + 1];
    int n = 0;
    for (int i = 0; i < 4; i++) {
        const int64_t s = a->shape[a->d[i]], t = x_step[a->d[i]];
        if (s == 1) continue;
        if (n > 0 && step[n - 1] == s * t) {
            size[n - 1] *= s;
            step[n - 1] = t;
        } else {
            size[n] = s;
            step[n++] = t;
        }
    }
    moves m = {{1, 1, 1, 1}, {0, 0, 0, 0}};
    for (int i = 0; i < n; i++) {
        m.size[4 - n + i] = size[i];
        m.step[4 - n + i] = step[i];
    }
    return m;
}

/* What happens to an element on its way: E moves; an f32 or bf16 may be added to what is there. */
template <typename E, bool ADD> __device__ static inline void put_element(E *y, E x)
{
    if constexpr (ADD) cuda_store(y, cuda_float(*y) + cuda_float(x));
    else *y = x;
}

struct gather_map {
    int64_t n, step[4];
    cuda_divisor size[3]; /* of y's dimensions 1, 2, 3 */
};

/* y in order, x wherever it lies: the last dimension stays, or one side is so short that lines are used up anyway. */
template <typename E, bool ADD> __global__ void __launch_bounds__(CUDA_BLOCK) permute_gather_kernel(gather_map m, const E *x, E *y)
{
    const int64_t tile = CUDA_BLOCK * IN_FLIGHT;
    for (int64_t first = blockIdx.x * tile + threadIdx.x; first < m.n; first += tile * gridDim.x) {
        E e[IN_FLIGHT];
#pragma unroll
        for (int k = 0; k < IN_FLIGHT; k++) {
            int64_t i3 = first + k * CUDA_BLOCK;
            if (i3 >= m.n) continue;
            int64_t i2 = m.size[2].split(i3), i1 = m.size[1].split(i2), i0 = m.size[0].split(i1);
            e[k] = x[i0 * m.step[0] + i1 * m.step[1] + i2 * m.step[2] + i3 * m.step[3]];
        }
#pragma unroll
        for (int k = 0; k < IN_FLIGHT; k++) {
            const int64_t i = first + k * CUDA_BLOCK;
            if (i < m.n) put_element<E, ADD>(y + i, e[k]);
        }
    }
}

template <typename E, bool ADD> static int gather(sag_kernel_env *env, const moves *m, const void *x, void *y)
{
    const int64_t n = m->size[0] * m->size[1] * m->size[2] * m->size[3];
    const gather_map g = {n, {m->step[0], m->step[1], m->step[2], m->step[3]},
                          {cuda_divisor_of(m->size[1], n), cuda_divisor_of(m->size[2], n), cuda_divisor_of(m->size[3], n)}};
    return CUDA_LAUNCH(env, (permute_gather_kernel<E, ADD>), cuda_blocks(n, CUDA_BLOCK * IN_FLIGHT), CUDA_BLOCK, 0, g, (const E *)x, (E *)y);
}

/* Planes y[i * y_step + j] = x[i + j * x_step], i < rows, j < cols, cut into 32 x 32; two more dimensions outside. */
enum { SIDE = 32 };
struct plane_map {
    int64_t rows, cols, x_step, y_step, units;
    int64_t x_outer[2], y_outer[2];
    cuda_divisor row_tiles, col_tiles, outer1;
};

template <typename E, bool ADD> __global__ void __launch_bounds__(CUDA_BLOCK) transpose_kernel(plane_map p, const E *x, E *y)
{
    CUDA_SHARED(E, tile, [SIDE][SIDE + 1]);
    const int c = (int)threadIdx.x % SIDE, r = (int)threadIdx.x / SIDE;
    for (int64_t unit = blockIdx.x; unit < p.units; unit += gridDim.x) {
        int64_t jt = unit, it = p.col_tiles.split(jt), k1 = p.row_tiles.split(it), k0 = p.outer1.split(k1);
        /* split leaves the remainder in its argument: jt, it, k1 are the places, k0 the last quotient */
        const E *from = x + k0 * p.x_outer[0] + k1 * p.x_outer[1];
        E *to = y + k0 * p.y_outer[0] + k1 * p.y_outer[1];
        const int64_t i0 = it * SIDE, j0 = jt * SIDE;
        __syncthreads();
#pragma unroll
        for (int k = 0; k < SIDE; k += CUDA_BLOCK / SIDE) {
            if (i0 + c < p.rows && j0 + r + k < p.cols) tile[r + k][c] = from[i0 + c + (j0 + r + k) * p.x_step];
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < SIDE; k += CUDA_BLOCK / SIDE) {
            if (i0 + r + k < p.rows && j0 + c < p.cols) put_element<E, ADD>(to + (i0 + r + k) * p.y_step + j0 + c, tile[c][r + k]);
        }
    }
}

template <typename E, bool ADD> static int transpose(sag_kernel_env *env, const moves *m, int row, const void *x, void *y)
{
    int64_t y_step[4] = {0, 0, 0, 1};
    for (int i = 2; i >= 0; i--) y_step[i] = y_step[i + 1] * m->size[i + 1];
    const int o0 = row == 0 ? 1 : 0, o1 = row == 2 ? 1 : 2;
    const int64_t row_tiles = cuda_ceil_div(m->size[row], SIDE), col_tiles = cuda_ceil_div(m->size[3], SIDE);
    plane_map p = {m->size[row], m->size[3], m->step[3], y_step[row], m->size[o0] * m->size[o1] * row_tiles * col_tiles,
                   {m->step[o0], m->step[o1]}, {y_step[o0], y_step[o1]},
                   cuda_divisor_of(1, 1), cuda_divisor_of(1, 1), cuda_divisor_of(1, 1)};
    p.col_tiles = cuda_divisor_of(col_tiles, p.units);
    p.row_tiles = cuda_divisor_of(row_tiles, p.units);
    p.outer1 = cuda_divisor_of(m->size[o1], p.units);
    return CUDA_LAUNCH(env, (transpose_kernel<E, ADD>), cuda_blocks(p.units, 1), CUDA_BLOCK, 0, p, (const E *)x, (E *)y);
}

template <typename E, bool ADD> static int permute(sag_kernel_env *env, const moves *m, const void *x, void *y)
{
    int row = -1;
    for (int i = 0; i < 3; i++) {
        if (m->size[i] > 1 && m->step[i] == 1) row = i;
    }
    if (row >= 0 && m->size[row] >= 8 && m->size[3] >= 8) return transpose<E, ADD>(env, m, row, x, y);
    return gather<E, ADD>(env, m, x, y);
}

/* Where the last dimension stays, `wide` elements of it make one. */
template <typename E> static int permute_wide(sag_kernel_env *env, moves m, int wide, const void *x, void *y)
{
    for (int i = 0; i < 3; i++) m.step[i] /= wide;
    m.size[3] /= wide;
    return gather<E, false>(env, &m, x, y);
}

static int cuda_permute(sag_kernel_env *env, const permute_args *a)
{
    const moves m = moves_of(a);
    if (m.size[0] * m.size[1] * m.size[2] * m.size[3] <= 0) return SAG_KERNEL_OK;
    if (a->accumulate) {
        if (a->act == SAG_F32) return permute<float, true>(env, &m, a->x, a->y);
        if (a->act == SAG_BF16) return permute<cuda_bf16, true>(env, &m, a->x, a->y);
        return SAG_KERNEL_UNSUPPORTED;
    }
    const int64_t item = a->act == SAG_U8 ? 1 : a->act == SAG_BF16 ? 2 : 4;
    if (m.step[3] == 1) { /* whole rows: all steps are multiples of their length or of what makes it up */
        uintptr_t all = (uintptr_t)a->x | (uintptr_t)a->y | (uintptr_t)(m.size[3] * item) | 16;
        for (int i = 0; i < 3; i++) all |= (uintptr_t)(m.step[i] * item);
        const int64_t unit = (int64_t)(all & (~all + 1));
        if (unit == 16) return permute_wide<unit16>(env, m, (int)(16 / item), a->x, a->y);
        if (unit == 8) return permute_wide<uint2>(env, m, (int)(8 / item), a->x, a->y);
        if (unit == 4 && item < 4) return permute_wide<uint32_t>(env, m, (int)(4 / item), a->x, a->y);
    }
    if (item == 4) return permute<uint32_t, false>(env, &m, a->x, a->y);
    if (item == 2) return permute<uint16_t, false>(env, &m, a->x, a->y);
    return permute<uint8_t, false>(env, &m, a->x, a->y);
}

CUDA_REGISTER(shape)
{
    t->copy_block = cuda_copy_block;
    t->permute = cuda_permute;
}
