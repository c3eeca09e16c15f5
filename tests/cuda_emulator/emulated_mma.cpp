/*
 * emulated_mma.cpp - the tensor cores' products and the asynchronous copy. With g = lane / 4 and t = lane % 4 (PTX ISA,
 * "Matrix fragments for mma.m16n8k16 / m16n8k8"):
 *
 *   m16n8k16, bf16 pairs   a[r]: row g + 8 (r % 2), columns 2 t + 8 (r / 2) and the next; b[r]: column g, rows 2 t + 8 r and the next
 *   m16n8k8, tf32          a[r]: row g + 8 (r % 2), column t + 4 (r / 2);                b[r]: column g, row t + 4 r
 *   d, both                d[i]: row g + 8 (i / 2), column 2 t + i % 2
 *
 * Products are exact in f32 up to the sum; sums are taken in f64 and rounded once, which no order of the card's own
 * sums is further from than its own rounding.
 */
#include "kernels/cuda/mma.cuh"
#include "tests/cuda_emulator/emulator.h"

namespace emulator {

static float from_bf16(uint32_t bits)
{
    uint32_t u = bits << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
/* The tensor core reads 19 of the 32 bits, whatever the others are. */
static float from_tf32(uint32_t bits)
{
    uint32_t u = bits & 0xffffe000u;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static void multiply(thread *lanes, const float (*a)[16], const float (*b)[8], int k)
{
    for (int lane = 0; lane < 32; lane++) {
        float *d = (float *)lanes[lane].operand[0];
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
            double sum = (double)d[i];
            for (int j = 0; j < k; j++) sum += (double)a[row][j] * (double)b[j][column];
            d[i] = (float)sum;
        }
    }
}

static void bf16_16816(thread *lanes, unsigned)
{
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const uint32_t *pa = (const uint32_t *)lanes[lane].operand[1], *pb = (const uint32_t *)lanes[lane].operand[2];
        const int g = lane / 4, t = lane % 4;
        for (int r = 0; r < 4; r++) {
            float *row = &a[g + 8 * (r % 2)][2 * t + 8 * (r / 2)];
            row[0] = from_bf16(pa[r] & 0xffffu);
            row[1] = from_bf16(pa[r] >> 16);
        }
        for (int r = 0; r < 2; r++) {
            b[2 * t + 8 * r][g] = from_bf16(pb[r] & 0xffffu);
            b[2 * t + 8 * r + 1][g] = from_bf16(pb[r] >> 16);
        }
    }
    multiply(lanes, a, b, 16);
}

static void tf32_1688(thread *lanes, unsigned)
{
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const uint32_t *pa = (const uint32_t *)lanes[lane].operand[1], *pb = (const uint32_t *)lanes[lane].operand[2];
        const int g = lane / 4, t = lane % 4;
        for (int r = 0; r < 4; r++) a[g + 8 * (r % 2)][t + 4 * (r / 2)] = from_tf32(pa[r]);
        for (int r = 0; r < 2; r++) b[t + 4 * r][g] = from_tf32(pb[r]);
    }
    multiply(lanes, a, b, 8);
}

/* lanes' operand[1]: the address of row lane % 8 of matrix lane / 8; register m of lane: elements 2t, 2t + 1 of row g of
 * matrix m, or of its transpose. */
static void load_matrices(thread *lanes, bool transposed)
{
    uint16_t matrix[4][8][8];
    for (int lane = 0; lane < 32; lane++) memcpy(matrix[lane / 8][lane % 8], lanes[lane].operand[1], 16);
    for (int lane = 0; lane < 32; lane++) {
        uint32_t *r = (uint32_t *)lanes[lane].operand[0];
        const int g = lane / 4, t = lane % 4;
        for (int m = 0; m < 4; m++) {
            uint16_t low = transposed ? matrix[m][2 * t][g] : matrix[m][g][2 * t];
            uint16_t high = transposed ? matrix[m][2 * t + 1][g] : matrix[m][g][2 * t + 1];
            r[m] = (uint32_t)low | (uint32_t)high << 16;
        }
    }
}

static void needs_tensor_cores(const char *what)
{
    if (!block.tensor_cores) fault("%s on an architecture that lacks it; ask cuda_tensor_cores()", what);
}

static void check_shared_16(const void *p, const char *what)
{
    if ((const char *)p < shared_base || (const char *)p >= shared_base + ((size_t)1 << 20)) fault("%s: not in shared memory", what);
    if ((uintptr_t)p % 16) fault("%s: the address is not a multiple of 16", what);
}

} // namespace emulator

using namespace emulator;

void cuda_emulator_product(cuda_emulator_mma kind, float *d, const uint32_t *a, const uint32_t *b, cuda_emulator_site at)
{
    needs_tensor_cores("mma.sync");
    thread *self = block.now;
    self->operand[0] = d;
    self->operand[1] = a;
    self->operand[2] = b;
    if (kind == CUDA_EMULATOR_BF16_16816) {
        warp_meet(0xffffffffu, "mma.sync bf16", at, bf16_16816);
    } else {
        warp_meet(0xffffffffu, "mma.sync tf32", at, tf32_1688);
    }
}

void cuda_emulator_ldmatrix(uint32_t *r, const void *row, bool transposed, cuda_emulator_site at)
{
    needs_tensor_cores("ldmatrix");
    check_shared_16(row, "ldmatrix");
    check_access(row, 16, false, false);
    thread *self = block.now;
    self->operand[0] = r;
    self->operand[1] = row;
    if (transposed) {
        warp_meet(0xffffffffu, "ldmatrix.trans", at, [](thread *lanes, unsigned) { load_matrices(lanes, true); });
    } else {
        warp_meet(0xffffffffu, "ldmatrix", at, [](thread *lanes, unsigned) { load_matrices(lanes, false); });
    }
}

/* The bytes arrive when they are waited for; until then the place holds what nobody should use. */
void cuda_emulator_cp_async(void *shared, const void *global, bool valid)
{
    check_shared_16(shared, "cp.async");
    if ((uintptr_t)global % 16) fault("cp.async: the address in global memory is not a multiple of 16");
    pending_copy c = {(char *)shared, {0}};
    if (valid) {
        check_access(global, 16, false, false);
        memcpy(c.bytes, global, 16);
    }
    check_access(shared, 16, true, false);
    if (!block.tensor_cores) { /* mma.cuh copies at once on older cards */
        memcpy(shared, c.bytes, 16);
        return;
    }
    memset(shared, 0xff, 16);
    checker_pending(c.to, 16, true);
    block.now->copies.push_back(c);
}

void cuda_emulator_cp_commit()
{
    block.now->groups.push_back(block.now->copies.size());
}

void cuda_emulator_cp_wait(int pending)
{
    thread *self = block.now;
    if ((int)self->groups.size() <= pending) return;
    size_t done = self->groups[self->groups.size() - 1 - (size_t)pending];
    for (size_t i = 0; i < done; i++) {
        const pending_copy &c = self->copies[i];
        checker_pending(c.to, 16, false);
        check_access(c.to, 16, true, false);
        memcpy(c.to, c.bytes, 16);
    }
    self->copies.erase(self->copies.begin(), self->copies.begin() + (ptrdiff_t)done);
    std::vector<size_t> left;
    for (size_t i = self->groups.size() - (size_t)pending; i < self->groups.size(); i++) left.push_back(self->groups[i] - done);
    self->groups = left;
}
