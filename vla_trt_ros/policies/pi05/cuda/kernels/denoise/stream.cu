// The residual stream. Eight blocks share 64 columns: each adds up eight rows of them, two columns a
// thread, x[0] and x[1], and stores them. Counters say that all is there; the copy engine brings it.

constexpr int LIVE_SLICES = (HORIZON + 7) / 8;  // blocks of the eight that have rows
// Of a chunk of the stream, which has no more rows: products read on into the next chunk.
constexpr int STREAM_CHUNK = LIVE_SLICES * 8 * 128;

struct Part {
    int slice, columns, row, column;
};

__device__ __forceinline__ Part part_of(int block, int thread) {
    int lane = thread & 31, slice = block & 7, columns = block >> 3;
    // In the order in which the threads of a product hold its columns.
    int column = 64 * columns + (lane >> 3) * 16 + (lane & 1) * 8 + ((lane >> 1) & 3) * 2;
    return {slice, columns, 8 * slice + (thread >> 5), column};
}

__device__ __forceinline__ void Block::store_stream(float2 factor, float inverse, bool last) {
    Part part = part_of(block, thread);
    int lane = thread & 31, row = part.row, column = part.column;
    float y0 = x[0] * factor.x, y1 = x[1] * factor.y;
    float square = x[0] * x[0] + x[1] * x[1];
    for (int i = 16; i; i >>= 1) square += __shfl_xor_sync(~0u, square, i);
    if (row >= HORIZON) return;
    if (lane == 0) ((float*)(p.workspace + SQUARES))[row * GROUPS + part.columns] = square;
    if (last)
        ((u32*)(p.workspace + LAST))[(row * WIDTH + column) / 2] = pack_bf16(y0, y1);
    else
        *(u16*)(p.workspace + XS + (column >> 7) * STREAM_CHUNK +
                swizzled(row, column & 127)) =
            pack_fp8(y0 * inverse, y1 * inverse);
}

// Thread 0: half of it for each warpgroup.
__device__ __forceinline__ void Block::ask_stream() {
    constexpr int BYTES = 4 * STREAM_CHUNK;
    fence_global();
    for (int half = 0; half < 2; half++) {
        expect(barrier(A0 + half), BYTES);
        copy_bulk(base + A + half * BYTES, p.workspace + XS + half * BYTES, BYTES,
                  barrier(A0 + half));
    }
}

// 1 / root mean square of each row, from the groups' sums of squares: begun here, ...
__device__ __forceinline__ void Block::load_squares(float4 (&sums)[4]) const {
    if (thread < 64) {
        const float4* from = (const float4*)(p.workspace + SQUARES) + thread * 4;
        for (int i = 0; i < 4; i++) sums[i] = __ldcg(from + i);
    }
}
// ... ended here; visible behind the next together().
__device__ __forceinline__ void Block::store_row_scales(const float4 (&sums)[4]) const {
    if (thread < 64) {
        float total = 0.0f;
        for (int i = 0; i < 4; i++) total += (sums[i].x + sums[i].y) + (sums[i].z + sums[i].w);
        row_scales()[thread] = rsqrtf(total / WIDTH + EPS);
    }
}

// Latents -> stream.
__device__ __forceinline__ void Block::begin(int step) {
    Part part = part_of(block, thread);
    int lane = thread & 31, column = part.column;
    if (!step) order_keys();
    float4 weight[2][ACTIONS / 4];
#pragma unroll
    for (int i = 0; i < ACTIONS / 4; i++) {
        weight[0][i] = *((const float4*)(p.in_weight + column * ACTIONS) + i);
        weight[1][i] = *((const float4*)(p.in_weight + (column + 1) * ACTIONS) + i);
    }
    if (step) {
        if (thread == 0) wait_for(p.counters, MOVED, step * HORIZON);
        together();
    }
    if (part.slice < LIVE_SLICES) {
        float latent = 0.0f;
        if (part.row < HORIZON)
            latent = __ldcg(p.latents + ((u64)step * p.rows + part.row) * ACTIONS + lane);
        x[0] = p.in_bias[column];
        x[1] = p.in_bias[column + 1];
#pragma unroll
        for (int i = 0; i < ACTIONS / 4; i++) {
            const float4 &a = weight[0][i], &b = weight[1][i];
            float v0 = __shfl_sync(~0u, latent, 4 * i), v1 = __shfl_sync(~0u, latent, 4 * i + 1);
            float v2 = __shfl_sync(~0u, latent, 4 * i + 2), v3 = __shfl_sync(~0u, latent, 4 * i + 3);
            x[0] += v0 * a.x + v1 * a.y + v2 * a.z + v3 * a.w;
            x[1] += v0 * b.x + v1 * b.y + v2 * b.z + v3 * b.w;
        }
        store_stream(*(const float2*)(p.factor + (u64)step * (2 * p.layers + 1) * WIDTH + column),
                     p.inverse[0], false);
    }
    signal(p.counters, STREAM);
}

__device__ __forceinline__ void Block::euler(int step) {
    if (block >= HORIZON) return;
    if (thread == 0) wait_for(p.counters, STREAM, gridDim.x * (step + 1) * (p.layers + 1));
    together();
    move_latents<GROUPS>(step, (const float*)(p.workspace + SQUARES) + block * GROUPS);
}
