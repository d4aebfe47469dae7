// Attention of the prefix: many rows, one key-value head of 256 columns, bfloat16. Compute
// capability 9.0.
//
// A block has 128 rows, 64 for each of two warpgroups, and a share of the keys; the blocks of a
// cluster have the same rows and share out the keys. So a block reads few keys, which come from the
// L2 cache at a rate that limits all of them, and every multiprocessor has a block. A third
// warpgroup brings keys and values by 64, two ahead. At the end each block gets a share of the
// columns from all blocks of its cluster, in bfloat16, and adds them up.
//
// Keys that do not count are masked, and their values are zeroed: they may be anything.

#include "hopper/memory.cu"
#include "hopper/values.cu"
#include "hopper/products.cu"

namespace {

constexpr int DIM = 256, ROWS = 128, TILE = 64, STAGES = 2, COMPUTE = 256;
constexpr int TILE_BYTES = TILE * DIM * 2, ROWS_BYTES = ROWS * DIM * 2;
constexpr int MOST_BLOCKS = 4;                // of a cluster
constexpr int SHARE_BYTES = COMPUTE * 4 * 2;  // of 8 columns: 4 numbers a thread, bfloat16

// Shared memory. Behind the last product, the sums of all blocks of the cluster lie in front.
constexpr int Q = 0, KEYS = ROWS_BYTES, VALUES = KEYS + STAGES * TILE_BYTES,
              WEIGHTS = VALUES + STAGES * TILE_BYTES,
              BARRIERS = WEIGHTS + MOST_BLOCKS * ROWS * 8;
enum { Q_HERE, KEYS_HERE, VALUES_HERE = KEYS_HERE + STAGES, KEYS_FREE = VALUES_HERE + STAGES,
       VALUES_FREE = KEYS_FREE + STAGES, COUNT = VALUES_FREE + STAGES };

// Of the driver: where a matrix lies, and that 64 of its columns go to 128 swizzled bytes a row.
struct alignas(64) TensorMap {
    u64 opaque[16];
};

__device__ __forceinline__ void copy_box(u32 to, const TensorMap& from, int column, int row,
                                         u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(&from), "r"(column), "r"(row), "r"(barrier)
        : "memory");
}

__device__ __forceinline__ void meet_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;"
                 ::: "memory");
}

__device__ __forceinline__ u32 in_block(u32 address, u32 rank) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

__device__ __forceinline__ void warpgroup_together(int group) {
    asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
}

__device__ __forceinline__ void store_pair(void* out, u64 at, float low, float high, int fp8) {
    if (fp8)
        *((u16*)out + at / 2) = pack_fp8(low, high);
    else
        *((u32*)out + at / 2) = pack_bf16(low, high);
}

// Of a block's share of the tiles, `from` to `to`.
struct Share {
    int from, to;
};

__device__ __forceinline__ void bring_queries(u32 base, const TensorMap& q, int row) {
    u32 here = base + BARRIERS + 8 * Q_HERE;
    expect(here, ROWS_BYTES);
    for (int i = 0; i < 4; i++) copy_box(base + Q + i * 2 * CHUNK, q, 64 * i, row, here);
}

__device__ __forceinline__ void bring(u32 base, const TensorMap& keys, const TensorMap& values,
                                      Share share) {
    auto barrier = [&](int i) { return base + BARRIERS + 8 * i; };
    for (int t = share.from; t < share.to; t++) {
        int n = t - share.from, stage = n % STAGES, turn = n / STAGES;
        if (turn) wait_bytes(barrier(KEYS_FREE + stage), (turn - 1) & 1);
        expect(barrier(KEYS_HERE + stage), TILE_BYTES);
        for (int i = 0; i < 4; i++)
            copy_box(base + KEYS + stage * TILE_BYTES + i * CHUNK, keys, 64 * i, t * TILE,
                     barrier(KEYS_HERE + stage));
        if (turn) wait_bytes(barrier(VALUES_FREE + stage), (turn - 1) & 1);
        expect(barrier(VALUES_HERE + stage), TILE_BYTES);
        for (int i = 0; i < 4; i++)
            copy_box(base + VALUES + stage * TILE_BYTES + i * CHUNK, values, 64 * i, t * TILE,
                     barrier(VALUES_HERE + stage));
    }
}

// Values of rows from `live` on: zero.
__device__ __forceinline__ void zero_rows(u32 tile, int live, int thread) {
    for (int i = live * 32 + thread; i < TILE * 32; i += 128)
        store_shared(tile + (i & 3) * CHUNK + (i >> 5) * 128 + ((i >> 2) & 7) * 16,
                     make_uint4(0, 0, 0, 0));
}

template <int BLOCKS>
__device__ __forceinline__ void attend(const TensorMap& q, const TensorMap& keys,
                                       const TensorMap& values, void* out, const int* valid_at,
                                       float inverse, float scale, int count, int fp8) {
    extern __shared__ u8 raw[];
    u32 start = shared_address(raw), base = (start + 1023) & ~1023u;
    u8* memory = raw + (base - start);
    auto barrier = [&](int i) { return base + BARRIERS + 8 * i; };
    int rank = blockIdx.x % BLOCKS, row = blockIdx.x / BLOCKS * ROWS;
    int thread = threadIdx.x, group = __shfl_sync(~0u, thread >> 7, 0);
    if (thread == 0) {
        for (int i = 0; i < COUNT; i++) open_barrier(barrier(i), i >= KEYS_FREE ? 2 : 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (thread == COMPUTE) bring_queries(base, q, row);
    int valid = *valid_at, tiles = (valid + TILE - 1) / TILE;
    Share share = {tiles * rank / BLOCKS, tiles * (rank + 1) / BLOCKS};
    if (thread >= COMPUTE) {
        give_registers();
        if (thread == COMPUTE) bring(base, keys, values, share);
        __syncwarp();
        meet_cluster();
        meet_cluster();
        return;
    }
    take_registers();
    int t = thread & 127, warp = t >> 5, quad = (t & 31) >> 2, lane4 = t & 3;
    float o[128] = {}, top[2] = {-1e30f, -1e30f}, weight[2] = {0.0f, 0.0f};
    u64 queries = tile(base + Q + group * CHUNK);
    wait_bytes(barrier(Q_HERE), 0);
    for (int at = share.from; at < share.to; at++) {
        int n = at - share.from, stage = n % STAGES, parity = n / STAGES & 1;
        int live = valid - at * TILE;  // keys that count, from here on
        float s[32] = {};
        wait_bytes(barrier(KEYS_HERE + stage), parity);
        u64 key_tile = tile(base + KEYS + stage * TILE_BYTES);
        begin_products();
#pragma unroll
        for (int k = 0; k < 16; k++)
            multiply_bf16(s, queries + ((k >> 2) * 2 * CHUNK + (k & 3) * 32) / 16,
                          key_tile + ((k >> 2) * CHUNK + (k & 3) * 32) / 16, k);
        end_products();
        if (t == 0) arrive(barrier(KEYS_FREE + stage));
        if (live < TILE) {
#pragma unroll
            for (int i = 0; i < 32; i++)
                if ((i >> 2) * 8 + 2 * lane4 + (i & 1) >= live) s[i] = -1e30f;
        }
        float higher[2] = {top[0], top[1]}, fade[2];
#pragma unroll
        for (int i = 0; i < 32; i++)
            higher[(i >> 1) & 1] = fmaxf(higher[(i >> 1) & 1], s[i]);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            higher[half] = fmaxf(higher[half], __shfl_xor_sync(~0u, higher[half], 1));
            higher[half] = fmaxf(higher[half], __shfl_xor_sync(~0u, higher[half], 2));
            fade[half] = power_of_two((top[half] - higher[half]) * scale);
            top[half] = higher[half];
            weight[half] *= fade[half];
            higher[half] *= scale;
        }
#pragma unroll
        for (int i = 0; i < 32; i++) {
            s[i] = power_of_two(s[i] * scale - higher[(i >> 1) & 1]);
            weight[(i >> 1) & 1] += s[i];
        }
        u32 w[16];
#pragma unroll
        for (int i = 0; i < 16; i++) w[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
#pragma unroll
        for (int i = 0; i < 128; i++) o[i] *= fade[(i >> 1) & 1];
        wait_bytes(barrier(VALUES_HERE + stage), parity);
        u32 values_at = base + VALUES + stage * TILE_BYTES;
        if (live < TILE) {
            // Both warpgroups write the same zeros.
            zero_rows(values_at, live, t);
            fence_shared();
            warpgroup_together(group);
        }
        u64 value_tile = tile(values_at, CHUNK);
        begin_products();
#pragma unroll
        for (int k = 0; k < 4; k++)
            multiply_values(o, w[4 * k], w[4 * k + 1], w[4 * k + 2], w[4 * k + 3],
                            value_tile + k * 128, 1);
        end_products();
        if (t == 0) arrive(barrier(VALUES_FREE + stage));
    }

    // Rows of this thread: this one, and 8 below it.
    int mine = 64 * group + 16 * warp + quad;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        weight[half] += __shfl_xor_sync(~0u, weight[half], 1);
        weight[half] += __shfl_xor_sync(~0u, weight[half], 2);
    }
    meet_cluster();  // all products of the cluster are done, all keys and values have come
#pragma unroll
    for (int other = 0; other < BLOCKS; other++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 to = base + WEIGHTS + (rank * ROWS + mine + 8 * half) * 8;
            if (lane4 == 0)
                asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(in_block(to, other)),
                             "f"(top[half] * scale), "f"(weight[half])
                             : "memory");
        }
    // Columns by 8, PER of them for each block: [block that they come from][columns][thread].
    constexpr int PER = (32 + BLOCKS - 1) / BLOCKS;
    u32 to = base + rank * PER * SHARE_BYTES + thread * 8, there = 0;
    float over[2];  // a block that has no keys has weights of zero
#pragma unroll
    for (int half = 0; half < 2; half++)
        over[half] = weight[half] > 0.0f ? __fdividef(1.0f, weight[half]) : 0.0f;
#pragma unroll
    for (int i = 0; i < 32; i++) {
        if (i % PER == 0) there = in_block(to, i / PER);
        asm volatile("st.shared::cluster.v2.u32 [%0], {%1, %2};" ::"r"(there + i % PER * SHARE_BYTES),
                     "r"(pack_bf16(o[4 * i] * over[0], o[4 * i + 1] * over[0])),
                     "r"(pack_bf16(o[4 * i + 2] * over[1], o[4 * i + 3] * over[1]))
                     : "memory");
    }
    meet_cluster();
    float share_of[BLOCKS][2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float2* seen = (const float2*)(memory + WEIGHTS) + mine + 8 * half;
        float highest = -1e30f, total = 0.0f;
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) highest = fmaxf(highest, seen[b * ROWS].x);
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
            share_of[b][half] = power_of_two(seen[b * ROWS].x - highest) * seen[b * ROWS].y;
            total += share_of[b][half];
        }
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) share_of[b][half] *= __fdividef(inverse, total);
    }
    int end = min(PER, 32 - rank * PER);
    u64 line = (u64)(row + mine) * DIM + 8 * rank * PER + 2 * lane4;
#pragma unroll 2
    for (int i = 0; i < end; i++) {
        const uint2* at = (const uint2*)memory + i * COMPUTE + thread;
        float sum[4] = {};
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
            uint2 v = at[b * PER * COMPUTE];
            sum[0] += bf16_low(v.x) * share_of[b][0];
            sum[1] += bf16_high(v.x) * share_of[b][0];
            sum[2] += bf16_low(v.y) * share_of[b][1];
            sum[3] += bf16_high(v.y) * share_of[b][1];
        }
        if (row + mine < count) store_pair(out, line + 8 * i, sum[0], sum[1], fp8);
        if (row + mine + 8 < count) store_pair(out, line + 8 * DIM + 8 * i, sum[2], sum[3], fp8);
    }
}

}  // namespace

// out: `count` rows of 256, times `inverse`, FP8 or bfloat16. `scale`: of logits, in powers of two.
// Clusters of BLOCKS blocks of 384 threads, one for each 128 rows.
#define PREFIX_ATTENTION(BLOCKS)                                                             \
    extern "C" __global__ void __launch_bounds__(384, 1) prefix_attention_##BLOCKS(           \
        const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap keys,         \
        const __grid_constant__ TensorMap values, void* out, const int* valid, float inverse, \
        float scale, int count, int fp8) {                                                   \
        attend<BLOCKS>(q, keys, values, out, valid, inverse, scale, count, fp8);             \
    }

PREFIX_ATTENTION(1)
PREFIX_ATTENTION(2)
PREFIX_ATTENTION(3)
PREFIX_ATTENTION(4)
