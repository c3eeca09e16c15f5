/*
 * test_cuda_emulator.cpp - the emulator itself: kernels that are right run and give what a card would give, and each kind
 * of fault that is planted in a small kernel is reported, at its place.
 */
#include "kernels/cuda/mma.cuh"
#include "tests/cuda_emulator/hooks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern "C" {
#include <cmocka.h>
}

static char report[2000];
static sag_kernel_env env;
static cudaStream_t stream;

static void keep_report(void *, const char *message)
{
    snprintf(report, sizeof report, "%s", message);
}

static int setup(void **)
{
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    env.stream = stream;
    return 0;
}
static int teardown(void **)
{
    cudaStreamDestroy(stream);
    return 0;
}

template <typename T> static T *on_card(const std::vector<T> &v)
{
    void *p = NULL;
    assert_int_equal(cudaMalloc(&p, v.size() * sizeof(T)), cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice, stream), cudaSuccess);
    return (T *)p;
}
template <typename T> static std::vector<T> from_card(const T *p, size_t n)
{
    std::vector<T> v(n);
    assert_int_equal(cudaMemcpyAsync(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost, stream), cudaSuccess);
    return v;
}

/* The launch must be reported, in words that contain each of `a` and `b`. In a child: what the address sanitizer sees ends
 * the process. */
template <typename F> static void must_report(F launch, const char *a, const char *b)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        dup2(ends[1], 2);
        cuda_emulator_on_report(keep_report, NULL);
        int result = launch();
        fprintf(stderr, "%s\n", report);
        _exit(report[0] && result == SAG_KERNEL_DEVICE ? 1 : 0);
    }
    close(ends[1]);
    char text[8000];
    size_t n = 0;
    ssize_t k;
    while (n + 1 < sizeof text && (k = read(ends[0], text + n, sizeof text - 1 - n)) > 0) n += (size_t)k;
    text[n] = 0;
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) fail_msg("no report; wanted \"%s\"", a);
    const bool sanitizer = strstr(text, "AddressSanitizer") || strstr(text, "runtime error");
    if (!sanitizer && (!strstr(text, a) || !strstr(text, b))) fail_msg("reported: %s\nwanted \"%s\" and \"%s\"", text, a, b);
}

/* What only the checker can see, not the address sanitizer. */
static void needs_checker()
{
    if (!cuda_emulator_checks()) skip();
}

/* ------------------------------------------------------------------------------------------- right kernels */

/* y[block] = sum of the block's x; a warp's lanes by shuffles, warps through shared memory */
static __global__ void block_sums(const float *x, float *y, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    float s = cuda_block_sum(i < n ? x[i] : 0.0f);
    s = cuda_block_max(s) + cuda_block_sum(0.0f);
    if (threadIdx.x == 0) y[blockIdx.x] = s;
}

static __global__ void transpose(const float *x, float *y, int rows, int columns)
{
    CUDA_SHARED(float, tile, [16][17]);
    int r = (int)(blockIdx.y * 16 + threadIdx.y), c = (int)(blockIdx.x * 16 + threadIdx.x);
    if (r < rows && c < columns) tile[threadIdx.y][threadIdx.x] = x[r * columns + c];
    __syncthreads();
    r = (int)(blockIdx.y * 16 + threadIdx.x);
    c = (int)(blockIdx.x * 16 + threadIdx.y);
    if (r < rows && c < columns) y[c * rows + r] = tile[threadIdx.x][threadIdx.y];
}

static __global__ void reverse_in_dynamic(float *x, int n)
{
    CUDA_DYNAMIC_SHARED(float, s);
    int i = (int)threadIdx.x;
    if (i < n) s[i] = x[i];
    __syncthreads();
    if (i < n) x[i] = s[n - 1 - i];
}

static void test_right_kernels(void **)
{
    std::vector<float> x(1000), zeros(4), turned(1000);
    for (size_t i = 0; i < x.size(); i++) x[i] = (float)(i % 17) - 3;
    float *dx = on_card(x), *dy = on_card(zeros), *dt = on_card(turned);
    for (int backwards = 0; backwards < 2; backwards++) {
        setenv("SAGAN_EMULATOR_ORDER", backwards ? "backwards" : "", 1);
        assert_int_equal(CUDA_LAUNCH(&env, block_sums, 4, 256, 0, dx, dy, 1000), SAG_KERNEL_OK);
        std::vector<float> y = from_card(dy, 4);
        for (int b = 0; b < 4; b++) {
            float want = 0;
            for (size_t i = (size_t)b * 256; i < (size_t)b * 256 + 256 && i < 1000; i++) want += x[i];
            assert_true(y[(size_t)b] == want);
        }
        assert_int_equal(CUDA_LAUNCH(&env, transpose, dim3(3, 2), dim3(16, 16), 0, dx, dt, 25, 40), SAG_KERNEL_OK);
        std::vector<float> t = from_card(dt, 1000);
        for (size_t r = 0; r < 25; r++)
            for (size_t c = 0; c < 40; c++) assert_true(t[c * 25 + r] == x[r * 40 + c]);
        assert_int_equal(CUDA_LAUNCH(&env, reverse_in_dynamic, 1, 128, 400, dt, 100), SAG_KERNEL_OK);
        std::vector<float> u = from_card(dt, 100);
        for (size_t i = 0; i < 100; i++) assert_true(u[i] == t[99 - i]);
    }
    unsetenv("SAGAN_EMULATOR_ORDER");
    cudaFree(dx);
    cudaFree(dy);
    cudaFree(dt);
}

static __global__ void lanes(int *out)
{
    int i = (int)threadIdx.x;
    out[i] = __shfl_up_sync(0xffffffffu, i, 3, 8);
    out[32 + i] = __shfl_down_sync(0xffffffffu, i, 5);
    out[64 + i] = __shfl_sync(0xffffffffu, i, 9, 16);
    out[96 + i] = __shfl_xor_sync(0xffffffffu, i, 6);
    out[128 + i] = (int)__ballot_sync(0xffffffffu, i % 3 == 0);
    out[160 + i] = __any_sync(0xffffffffu, i == 7) + 2 * __all_sync(0xffffffffu, i < 32) + 4 * __all_sync(0xffffffffu, i < 31);
    double d = __shfl_xor_sync(0xffffffffu, (double)i + 0.25, 1);
    out[192 + i] = (int)(4 * d);
    if (i < 16) out[224 + i] = __shfl_xor_sync(0xffffu, i, 8); /* half a warp by itself */
}

static void test_lanes(void **)
{
    std::vector<int> none(240);
    int *p = on_card(none);
    assert_int_equal(CUDA_LAUNCH(&env, lanes, 1, 32, 0, p), SAG_KERNEL_OK);
    std::vector<int> v = from_card(p, 240);
    unsigned thirds = 0;
    for (int i = 0; i < 32; i += 3) thirds |= 1u << i;
    for (int i = 0; i < 32; i++) {
        const int *at = v.data() + i;
        assert_int_equal(at[0], i % 8 < 3 ? i : i - 3);
        assert_int_equal(at[32], i + 5 > 31 ? i : i + 5);
        assert_int_equal(at[64], i / 16 * 16 + 9);
        assert_int_equal(at[96], i ^ 6);
        assert_int_equal((unsigned)at[128], thirds);
        assert_int_equal(at[160], 3);
        assert_int_equal(at[192], 4 * (i ^ 1) + 1);
        if (i < 16) assert_int_equal(at[224], i ^ 8);
    }
    cudaFree(p);
}

static __global__ void count(unsigned *total, int *most, unsigned long long *wide)
{
    CUDA_SHARED(unsigned, here, [1]);
    if (threadIdx.x == 0) here[0] = 0;
    __syncthreads();
    atomicAdd(&here[0], 1u);
    atomicMax(most, (int)(threadIdx.x * blockIdx.x));
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(total, here[0]);
    if (threadIdx.x == 5) atomicCAS(wide, 0ull, 77ull + blockIdx.x);
}

/* y[blocks] = the sum of what all blocks stored, by the last of them */
static __global__ void sum_by_last(int *y, unsigned *counter, bool fence, bool counts)
{
    CUDA_SHARED(int, last, [1]);
    y[blockIdx.x * blockDim.x + threadIdx.x] = (int)(blockIdx.x + threadIdx.x);
    if (fence && counts) {
        if (!cuda_last_block(counter, gridDim.x)) return;
    } else {
        if (fence) __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) last[0] = counts ? atomicInc(counter, gridDim.x - 1) == gridDim.x - 1 : blockIdx.x == gridDim.x - 1;
        __syncthreads();
        if (!last[0]) return;
    }
    int sum = 0, n = (int)(gridDim.x * blockDim.x);
    for (int i = 0; i < n; i++) sum += y[i];
    if (threadIdx.x == 0) y[n] = sum;
}

static void test_last_block(void **)
{
    enum { BLOCKS = 5, THREADS = 64, N = BLOCKS * THREADS };
    unsigned *counter = on_card(std::vector<unsigned>{0});
    for (int backwards = 0; backwards < 2; backwards++) {
        setenv("SAGAN_EMULATOR_ORDER", backwards ? "backwards" : "", 1);
        for (int counts = 0; counts < 2; counts++) {
            int *y = on_card(std::vector<int>(N + 1, 0)), want = 0;
            assert_int_equal(CUDA_LAUNCH(&env, sum_by_last, BLOCKS, THREADS, 0, y, counter, true, counts != 0), SAG_KERNEL_OK);
            for (int i = 0; i < N; i++) want += i / THREADS + i % THREADS;
            /* without a counter the block of the highest number need not be the last */
            assert_true((from_card(y + N, 1)[0] == want) == (counts || !backwards));
            assert_int_equal(from_card(counter, 1)[0], 0);
            cudaFree(y);
        }
    }
    setenv("SAGAN_EMULATOR_ORDER", "", 1);
    int *y = on_card(std::vector<int>(N + 1, 0));
    if (cuda_emulator_checks())
        must_report([=] { return CUDA_LAUNCH(&env, sum_by_last, BLOCKS, THREADS, 0, y, counter, false, true); }, "__threadfence",
                    "stores of thread 0");
    cudaFree(y);
    cudaFree(counter);
}

static void test_atomics(void **)
{
    unsigned *total = on_card(std::vector<unsigned>{0});
    int *most = on_card(std::vector<int>{-1});
    unsigned long long *wide = on_card(std::vector<unsigned long long>{0});
    assert_int_equal(CUDA_LAUNCH(&env, count, 3, 50, 0, total, most, wide), SAG_KERNEL_OK);
    assert_int_equal(from_card(total, 1)[0], 150);
    assert_int_equal(from_card(most, 1)[0], 98);
    assert_int_equal(from_card(wide, 1)[0], 77);
    cudaFree(total);
    cudaFree(most);
    cudaFree(wide);
}

/* ---------------------------------------------------------------------------------------------- tensor cores */

/* One warp: y {16,8} = a {16,16} b {16,8}, a and b bf16 row-major, fragments through ldmatrix as a kernel would. */
static __global__ void product_bf16(const cuda_bf16 *a, const cuda_bf16 *b, float *y)
{
    CUDA_SHARED(cuda_bf16, sa, [16][16]);
    CUDA_SHARED(cuda_bf16, sb, [16][16]); /* the right half is not used */
    int lane = (int)threadIdx.x;
    cp_async_16(&sa[lane / 2][8 * (lane % 2)], a + lane * 8, true);
    cp_async_16(&sb[lane / 2][8 * (lane % 2)], lane % 2 ? b : b + lane / 2 * 8, lane % 2 == 0);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    uint32_t fa[4], fb[4];
    ldmatrix_x4(fa, &sa[lane % 16][8 * (lane / 16)]);
    ldmatrix_x4_trans(fb, &sb[lane % 16][8 * (lane / 16)]);
    float d[4] = {0, 0, 0, 0};
    uint32_t left[2] = {fb[0], fb[1]};
    mma_bf16_16816(d, fa, left);
    for (int i = 0; i < 4; i++) y[(lane / 4 + 8 * (i / 2)) * 8 + 2 * (lane % 4) + i % 2] = d[i];
}

static __global__ void product_tf32(const float *a, const float *b, float *y)
{
    int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    uint32_t fa[4], fb[2];
    for (int r = 0; r < 4; r++) fa[r] = to_tf32(a[(g + 8 * (r % 2)) * 8 + t + 4 * (r / 2)]);
    for (int r = 0; r < 2; r++) fb[r] = to_tf32(b[(t + 4 * r) * 8 + g]);
    float d[4] = {1, 1, 1, 1};
    mma_tf32_1688(d, fa, fb);
    for (int i = 0; i < 4; i++) y[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = d[i];
}

static void test_products(void **)
{
    std::vector<cuda_bf16> a(256), b(128);
    for (size_t i = 0; i < 256; i++) cuda_store(&a[i], (float)((int)(i * 7 % 23) - 11) / 8);
    for (size_t i = 0; i < 128; i++) cuda_store(&b[i], (float)((int)(i * 5 % 19) - 9) / 4);
    cuda_bf16 *da = on_card(a), *db = on_card(b);
    float *dy = on_card(std::vector<float>(128));
    assert_int_equal(CUDA_LAUNCH(&env, product_bf16, 1, 32, 0, da, db, dy), SAG_KERNEL_OK);
    std::vector<float> y = from_card(dy, 128);
    for (size_t i = 0; i < 16; i++) {
        for (size_t j = 0; j < 8; j++) {
            float want = 0;
            for (size_t k = 0; k < 16; k++) want += cuda_float(a[i * 16 + k]) * cuda_float(b[k * 8 + j]);
            assert_true(y[i * 8 + j] == want);
        }
    }
    std::vector<float> fa(128), fb(64);
    for (size_t i = 0; i < 128; i++) fa[i] = 1 + (float)i / 4096; /* 12 bits after the point: tf32 keeps 10 */
    for (size_t i = 0; i < 64; i++) fb[i] = (float)((int)(i % 5) - 2);
    float *pa = on_card(fa), *pb = on_card(fb);
    assert_int_equal(CUDA_LAUNCH(&env, product_tf32, 1, 32, 0, pa, pb, dy), SAG_KERNEL_OK);
    y = from_card(dy, 128);
    for (size_t i = 0; i < 16; i++) {
        for (size_t j = 0; j < 8; j++) {
            double want = 1;
            for (size_t k = 0; k < 8; k++) want += floor((double)fa[i * 8 + k] * 1024 + 0.5) / 1024 * (double)fb[k * 8 + j];
            assert_true(fabs((double)y[i * 8 + j] - want) < 1e-6);
        }
    }
    assert_true(to_tf32(1.00048828125f) == 0x3f802000u && to_tf32(-1.00048828125f) == 0xbf802000u); /* a tie goes away from 0 */
    setenv("SAGAN_EMULATOR_ARCH", "75", 1);
    must_report([&] { return CUDA_LAUNCH(&env, product_tf32, 1, 32, 0, pa, pb, dy); }, "mma.sync", "cuda_tensor_cores");
    unsetenv("SAGAN_EMULATOR_ARCH");
    for (void *p : {(void *)da, (void *)db, (void *)dy, (void *)pa, (void *)pb}) cudaFree(p);
}

/* ------------------------------------------------------------------------------------------- faults: memory */

static __global__ void copy(const float *x, float *y, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) y[i] = x[i];
}
static __global__ void copy_vectors(const float *x, float *y)
{
    reinterpret_cast<float4 *>(y)[threadIdx.x] = reinterpret_cast<const float4 *>(x)[threadIdx.x];
}
static __global__ void before(float *y)
{
    y[(int)threadIdx.x - 1] = 1;
}

static void test_device_bounds(void **)
{
    float *x = on_card(std::vector<float>(100)), *y = on_card(std::vector<float>(101)), *freed = on_card(std::vector<float>(100));
    cudaFree(freed);
    assert_int_equal(CUDA_LAUNCH(&env, copy, 1, 128, 0, x, y, 100), SAG_KERNEL_OK);
    must_report([=] { return CUDA_LAUNCH(&env, copy, 1, 128, 0, x, y, 101); }, "load of 4 bytes reaches 0 bytes past the end of an allocation of 400",
                "thread (100,0,0)");
    must_report([=] { return CUDA_LAUNCH(&env, copy, 1, 128, 0, y, x, 101); }, "store of 4 bytes reaches 0 bytes past the end", "copy, block (0,0,0)");
    must_report([=] { return CUDA_LAUNCH(&env, copy, 1, 128, 0, freed, y, 1); }, "load of 4 bytes reaches", "thread (0,0,0)");
    must_report([=] { return CUDA_LAUNCH(&env, before, 1, 1, 0, x); }, "store of 4 bytes reaches", "thread (0,0,0)");
    must_report([=] { return CUDA_LAUNCH(&env, copy_vectors, 1, 26, 0, y, x); }, "reaches", "thread (25,0,0)");
    must_report([=] { return CUDA_LAUNCH(&env, copy_vectors, 1, 2, 0, y, x + 1); }, "multiple of 16", "thread (0,0,0)");
    cudaFree(x);
    cudaFree(y);
}

static __global__ void past_shared(float *y, int n)
{
    CUDA_SHARED(float, s, [40]);
    s[n - (int)threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = s[n - (int)threadIdx.x];
}
static __global__ void unwritten(float *y, int n)
{
    CUDA_SHARED(float, s, [64]);
    if ((int)threadIdx.x < n) s[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}

static void test_shared_bounds(void **)
{
    float *y = on_card(std::vector<float>(64));
    assert_int_equal(CUDA_LAUNCH(&env, past_shared, 1, 32, 0, y, 39), SAG_KERNEL_OK);
    must_report([=] { return CUDA_LAUNCH(&env, past_shared, 1, 32, 0, y, 40); }, "0 bytes past the end of shared s", "thread (0,0,0)");
    cudaFree(y);
}

static void test_unwritten_shared(void **)
{
    needs_checker();
    float *y = on_card(std::vector<float>(64));
    assert_int_equal(CUDA_LAUNCH(&env, unwritten, 2, 64, 0, y, 64), SAG_KERNEL_OK);
    must_report([=] { return CUDA_LAUNCH(&env, unwritten, 2, 64, 0, y, 63); }, "a load of byte 252 of shared s (256 bytes), which this block has not stored",
                "block (0,0,0), thread (63,0,0)");
    cudaFree(y);
}

/* -------------------------------------------------------------------------------------------- faults: races */

static __global__ void neighbour(float *y, bool barrier)
{
    CUDA_SHARED(float, s, [64]);
    s[threadIdx.x] = (float)threadIdx.x;
    if (barrier) __syncthreads();
    y[threadIdx.x] = s[threadIdx.x ^ 33];
}
/* Loads of one round and stores of the next */
static __global__ void rounds(float *y, bool barrier)
{
    CUDA_SHARED(float, s, [64]);
    float sum = 0;
    for (int k = 0; k < 2; k++) {
        s[threadIdx.x] = (float)k;
        __syncthreads();
        sum += s[threadIdx.x ^ 33];
        if (barrier) __syncthreads();
    }
    y[threadIdx.x] = sum;
}
static __global__ void within_warp(float *y, int how)
{
    CUDA_SHARED(float, s, [64]);
    s[threadIdx.x] = (float)threadIdx.x;
    if (how == 1) __syncwarp();
    if (how == 2) (void)__shfl_xor_sync(0xffffffffu, 1, 1);
    y[threadIdx.x] = s[threadIdx.x ^ 1];
}
static __global__ void halves(float *y, bool same)
{
    CUDA_SHARED(uint16_t, s, [64]);
    s[same ? threadIdx.x / 2 : threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x / 2];
}
static __global__ void atomic_and_plain(float *y, bool barrier)
{
    CUDA_SHARED(int, s, [1]);
    if (threadIdx.x == 0) s[0] = 0;
    __syncthreads();
    atomicAdd(&s[0], 1);
    if (barrier) __syncthreads();
    y[threadIdx.x] = (float)s[0];
}
/* Thread 0 stores what everyone then loads, again and again */
static __global__ void broadcast(float *y, bool barrier)
{
    CUDA_SHARED(float, s, [1]);
    for (int k = 0; k < 3; k++) {
        if (threadIdx.x == 0) s[0] = (float)k;
        __syncthreads();
        y[threadIdx.x] = s[0];
        if (barrier) __syncthreads();
    }
}

static void test_races(void **)
{
    needs_checker();
    float *y = on_card(std::vector<float>(64));
    assert_int_equal(CUDA_LAUNCH(&env, neighbour, 2, 64, 0, y, true), SAG_KERNEL_OK);
    assert_int_equal(CUDA_LAUNCH(&env, rounds, 2, 64, 0, y, true), SAG_KERNEL_OK);
    assert_int_equal(CUDA_LAUNCH(&env, within_warp, 2, 64, 0, y, 1), SAG_KERNEL_OK);
    assert_int_equal(CUDA_LAUNCH(&env, halves, 2, 64, 0, y, false), SAG_KERNEL_OK);
    assert_int_equal(CUDA_LAUNCH(&env, atomic_and_plain, 2, 64, 0, y, true), SAG_KERNEL_OK);
    assert_int_equal(CUDA_LAUNCH(&env, broadcast, 2, 64, 0, y, true), SAG_KERNEL_OK);
    /* Threads run one after another, so a load may also come before its store: that too must be said. */
    must_report([=] { return CUDA_LAUNCH(&env, neighbour, 1, 64, 0, y, false); }, "shared s (256 bytes)", "neighbour, block (0,0,0)");
    setenv("SAGAN_EMULATOR_ORDER", "backwards", 1);
    must_report([=] { return CUDA_LAUNCH(&env, neighbour, 1, 64, 0, y, false); }, "shared s (256 bytes)", "neighbour, block (0,0,0)");
    unsetenv("SAGAN_EMULATOR_ORDER");
    must_report([=] { return CUDA_LAUNCH(&env, rounds, 1, 64, 0, y, false); }, "race on byte", "the store of thread");
    must_report([=] { return CUDA_LAUNCH(&env, within_warp, 1, 64, 0, y, 0); }, "shared s", "within_warp");
    must_report([=] { return CUDA_LAUNCH(&env, within_warp, 1, 64, 0, y, 2); }, "race on byte", "the store of thread");
    must_report([=] { return CUDA_LAUNCH(&env, halves, 1, 64, 0, y, true); }, "race on byte 0 of shared s", "the store of thread 0 and the store");
    must_report([=] { return CUDA_LAUNCH(&env, atomic_and_plain, 1, 64, 0, y, false); }, "race on byte", "shared s (4 bytes)");
    must_report([=] { return CUDA_LAUNCH(&env, broadcast, 1, 64, 0, y, false); }, "race on byte 0 of shared s", "the load of thread");
    cudaFree(y);
}

static __global__ void copy_ahead(const float *x, float *y, int how)
{
    CUDA_SHARED(float, s, [64]);
    if (threadIdx.x < 16) cp_async_16(&s[4 * threadIdx.x], x + 4 * threadIdx.x, true);
    cp_async_commit();
    if (how != 1) cp_async_wait<0>();
    if (how == 3) cp_async_wait<1>();
    if (how != 2) __syncthreads();
    y[threadIdx.x] = s[threadIdx.x ^ 4];
    if (how == 1) cp_async_wait<0>();
}
/* Two stages; the second is still under way when the first is read */
static __global__ void stages(const float *x, float *y, bool right)
{
    CUDA_SHARED(float, s, [2][128]);
    for (int k = 0; k < 2; k++) {
        cp_async_16(&s[k][4 * threadIdx.x], x + 128 * k + 4 * threadIdx.x, true);
        cp_async_commit();
    }
    cp_async_wait<1>();
    __syncthreads();
    y[threadIdx.x] = s[right ? 0 : 1][127 - threadIdx.x];
    cp_async_wait<0>();
    __syncthreads();
    y[32 + threadIdx.x] = s[1][127 - threadIdx.x];
}

static void test_asynchronous_copies(void **)
{
    std::vector<float> x(256);
    for (size_t i = 0; i < 256; i++) x[i] = (float)i;
    float *dx = on_card(x), *y = on_card(std::vector<float>(64));
    assert_int_equal(CUDA_LAUNCH(&env, copy_ahead, 1, 64, 0, dx, y, 0), SAG_KERNEL_OK);
    for (size_t i = 0; i < 64; i++) assert_true(from_card(y, 64)[i] == (float)(i ^ 4));
    assert_int_equal(CUDA_LAUNCH(&env, stages, 1, 32, 0, dx, y, true), SAG_KERNEL_OK);
    for (size_t i = 0; i < 64; i++) assert_true(from_card(y, 64)[i] == (float)(i < 32 ? 127 - i : 255 - (i - 32)));
    cudaFree(dx);
    cudaFree(y);
}

static void test_asynchronous_faults(void **)
{
    needs_checker();
    float *dx = on_card(std::vector<float>(256)), *y = on_card(std::vector<float>(64));
    must_report([=] { return CUDA_LAUNCH(&env, copy_ahead, 1, 64, 0, dx, y, 1); }, "shared s (256 bytes) is the destination of a cp.async", "copy_ahead");
    must_report([=] { return CUDA_LAUNCH(&env, copy_ahead, 1, 64, 0, dx, y, 2); }, "shared s", "copy_ahead");
    must_report([=] { return CUDA_LAUNCH(&env, stages, 1, 32, 0, dx, y, false); }, "is the destination of a cp.async", "stages");
    must_report([=] { return CUDA_LAUNCH(&env, copy_ahead, 1, 64, 0, dx + 1, y, 0); }, "not a multiple of 16", "copy_ahead");
    cudaFree(dx);
    cudaFree(y);
}

/* ----------------------------------------------------------------------------------------- faults: barriers */

static __global__ void early_end(float *y, int n)
{
    if ((int)threadIdx.x >= n) return;
    __syncthreads();
    y[threadIdx.x] = 1;
}
static __global__ void two_barriers(float *y, int n)
{
    if ((int)threadIdx.x < n) {
        y[threadIdx.x] = 1;
        __syncthreads();
    } else {
        y[threadIdx.x] = 2;
        __syncthreads();
    }
}
static __global__ void one_more(float *y, int n)
{
    __syncthreads();
    if ((int)threadIdx.x < n) __syncthreads();
    y[threadIdx.x] = 1;
}
static __global__ void partial_shuffle(float *y, int n)
{
    if ((int)threadIdx.x >= n) return;
    y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}
static __global__ void left_out(float *y)
{
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 16);
}
static __global__ void two_shuffles(float *y, int n)
{
    float v;
    if ((int)threadIdx.x < n) {
        v = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
    } else {
        v = __shfl_xor_sync(0xffffffffu, 2.0f, 2);
    }
    y[threadIdx.x] = v;
}

static void test_barriers(void **)
{
    float *y = on_card(std::vector<float>(64));
    assert_int_equal(CUDA_LAUNCH(&env, early_end, 1, 64, 0, y, 64), SAG_KERNEL_OK);
    assert_int_equal(CUDA_LAUNCH(&env, two_barriers, 1, 64, 0, y, 64), SAG_KERNEL_OK);
    assert_int_equal(CUDA_LAUNCH(&env, one_more, 1, 64, 0, y, 64), SAG_KERNEL_OK);
    assert_int_equal(CUDA_LAUNCH(&env, partial_shuffle, 1, 64, 0, y, 64), SAG_KERNEL_OK);
    assert_int_equal(CUDA_LAUNCH(&env, two_shuffles, 1, 64, 0, y, 64), SAG_KERNEL_OK);
    must_report([=] { return CUDA_LAUNCH(&env, early_end, 1, 64, 0, y, 63); }, "63 of 64 threads wait, 1 have ended", "tests/emulated/test_cuda_emulator.cpp:");
    must_report([=] { return CUDA_LAUNCH(&env, early_end, 1, 64, 0, y, 40); }, "40 of 64 threads wait", "early_end");
    must_report([=] { return CUDA_LAUNCH(&env, two_barriers, 1, 64, 0, y, 32); }, "meet at different barriers", "two_barriers");
    must_report([=] { return CUDA_LAUNCH(&env, one_more, 1, 64, 0, y, 10); }, "10 of 64 threads wait", "one_more");
    must_report([=] { return CUDA_LAUNCH(&env, partial_shuffle, 1, 64, 0, y, 60); }, "threads wait", "__shfl_xor_sync");
    must_report([=] { return CUDA_LAUNCH(&env, partial_shuffle, 1, 16, 0, y, 16); }, "lanes that the block of 16 threads does not have", "");
    must_report([=] { return CUDA_LAUNCH(&env, left_out, 1, 32, 0, y); }, "reads lane 16, which the mask 0000ffff leaves out", "left_out");
    must_report([=] { return CUDA_LAUNCH(&env, two_shuffles, 1, 64, 0, y, 16); }, "lanes of a warp meet at different places", "two_shuffles");
    cudaFree(y);
}

/* --------------------------------------------------------------------------------------- runtime: graphs, errors */

static __global__ void add(float *y, float by)
{
    y[threadIdx.x] += by;
}

static void test_graphs(void **)
{
    float *y = on_card(std::vector<float>(4)), *z = on_card(std::vector<float>(4));
    cudaGraph_t g;
    cudaGraphExec_t exec;
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    float by = 2;
    assert_int_equal(CUDA_LAUNCH(&env, add, 1, 4, 0, y, by), SAG_KERNEL_OK);
    by = 100; /* the argument is a copy */
    assert_int_equal(cudaMemcpyAsync(z, y, 16, cudaMemcpyDeviceToDevice, stream), cudaSuccess);
    assert_int_equal(cudaStreamEndCapture(stream, &g), cudaSuccess);
    assert_true(from_card(y, 1)[0] == 0 && from_card(z, 1)[0] == 0); /* recorded, not run */
    assert_int_equal(cudaGraphInstantiate(&exec, g, 0), cudaSuccess);
    cudaGraphDestroy(g);
    assert_int_equal(cudaGraphLaunch(exec, stream), cudaSuccess);
    assert_int_equal(CUDA_LAUNCH(&env, add, 1, 4, 0, y, 1.0f), SAG_KERNEL_OK);
    assert_int_equal(cudaGraphLaunch(exec, stream), cudaSuccess);
    assert_true(from_card(y, 1)[0] == 5 && from_card(z, 1)[0] == 5);
    cudaGraphExecDestroy(exec);
    /* what cannot be recorded spoils the recording */
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(stream, &g), cudaErrorStreamCaptureInvalidated);
    cudaGetLastError();
    cudaFree(y);
    cudaFree(z);
}

static void test_errors(void **)
{
    float *y = on_card(std::vector<float>(4));
    void *p = NULL;
    cuda_emulator_fail(CUDA_EMULATOR_ALLOC, 2, cudaErrorMemoryAllocation);
    assert_int_equal(cudaMalloc(&p, 16), cudaSuccess);
    cudaFree(p);
    assert_int_equal(cudaMalloc(&p, 16), cudaErrorMemoryAllocation);
    assert_null(p);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess); /* told once */
    assert_int_equal(cudaMalloc(&p, (size_t)1 << 50), cudaErrorMemoryAllocation);
    cudaGetLastError();
    assert_int_equal(CUDA_LAUNCH(&env, add, 1, 1025, 0, y, 1.0f), SAG_KERNEL_DEVICE);
    assert_int_equal(CUDA_LAUNCH(&env, add, 1, 4, 0, y, 1.0f), SAG_KERNEL_OK); /* that one was not sticky */
    cuda_emulator_fail(CUDA_EMULATOR_LAUNCH, 1, cudaErrorLaunchFailure);
    assert_int_equal(CUDA_LAUNCH(&env, add, 1, 4, 0, y, 1.0f), SAG_KERNEL_DEVICE);
    assert_int_equal(CUDA_LAUNCH(&env, add, 1, 4, 0, y, 1.0f), SAG_KERNEL_DEVICE); /* this one is */
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
    cuda_emulator_reset();
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(y + 2, y, 12, cudaMemcpyDeviceToDevice, stream), cudaErrorInvalidValue); /* past the end */
    cudaGetLastError();
    cudaFree(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_kernels), cmocka_unit_test(test_lanes),        cmocka_unit_test(test_atomics),
        cmocka_unit_test(test_last_block),
        cmocka_unit_test(test_products),      cmocka_unit_test(test_device_bounds), cmocka_unit_test(test_shared_bounds), cmocka_unit_test(test_unwritten_shared),
        cmocka_unit_test(test_races),         cmocka_unit_test(test_asynchronous_copies), cmocka_unit_test(test_asynchronous_faults),
        cmocka_unit_test(test_barriers),      cmocka_unit_test(test_graphs),        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
