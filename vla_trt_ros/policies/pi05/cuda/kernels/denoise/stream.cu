// The residual stream: begun from latents, stored for the next norm, ended as latents.

__device__ __forceinline__ void Block::store_stream(const float* factor, float inverse,
                                                    bool last) {
    int lane = thread & 31, column = stream_column();
    float y0 = x0 * factor[0], y1 = x1 * factor[1];
    float square = x0 * x0 + x1 * x1;
    for (int i = 16; i; i >>= 1) square += __shfl_xor_sync(~0u, square, i);
    if (row() >= p.horizon) return;
    if (lane == 0) ((float*)(p.workspace + SQUARES))[row() * GROUPS + columns()] = square;
    if (last)
        ((u32*)(p.workspace + LAST))[(row() * WIDTH + column) / 2] = pack_bf16(y0, y1);
    else
        *(u16*)(p.workspace + XS + (column >> 7) * stream_stride() +
                swizzled(row(), column & 127)) =
            pack_fp8(y0 * inverse, y1 * inverse);
}

// Latents -> stream.
__device__ __forceinline__ void Block::begin(int step) {
    int lane = thread & 31, column = stream_column();
    if (!step) order_keys();
    float4 weight[2][ACTIONS / 4];
#pragma unroll
    for (int i = 0; i < ACTIONS / 4; i++) {
        weight[0][i] = *((const float4*)(p.in_weight + column * ACTIONS) + i);
        weight[1][i] = *((const float4*)(p.in_weight + (column + 1) * ACTIONS) + i);
    }
    if (step) {
        if (thread == 0) wait_for(p.counters, MOVED, step * p.horizon);
        together();
    }
    if (slice() < live_slices()) {
        float latent = 0.0f;
        if (row() < p.horizon)
            latent = __ldcg(p.latents + ((u64)step * p.rows + row()) * ACTIONS + lane);
        x0 = p.in_bias[column];
        x1 = p.in_bias[column + 1];
#pragma unroll
        for (int i = 0; i < ACTIONS / 4; i++) {
            const float4 &a = weight[0][i], &b = weight[1][i];
            float v0 = __shfl_sync(~0u, latent, 4 * i), v1 = __shfl_sync(~0u, latent, 4 * i + 1);
            float v2 = __shfl_sync(~0u, latent, 4 * i + 2), v3 = __shfl_sync(~0u, latent, 4 * i + 3);
            x0 += v0 * a.x + v1 * a.y + v2 * a.z + v3 * a.w;
            x1 += v0 * b.x + v1 * b.y + v2 * b.z + v3 * b.w;
        }
        store_stream(p.factor + (u64)step * (2 * p.layers + 1) * WIDTH + column, p.inverse[0],
                     false);
    }
    signal(p.counters, STREAM);
}

// latents[step + 1] = latents[step] + dt * velocity: a row a block.
__device__ __forceinline__ void Block::euler(int step) {
    if (block >= p.horizon) return;
    if (thread == 0)
        wait_for(p.counters, STREAM, gridDim.x * (step + 1) * (p.layers + 1));
    together();
    int lane = thread & 31;
    float total = 0.0f;
    for (int i = 0; i < GROUPS; i++)
        total += __ldcg((const float*)(p.workspace + SQUARES) + block * GROUPS + i);
    float r = rsqrtf(total / WIDTH + EPS);
    const uint4* from = (const uint4*)(p.workspace + LAST) + block * (WIDTH / 8) + lane;
    uint4 v[4];
    for (int i = 0; i < 4; i++) v[i] = __ldcg(from + 32 * i);
    for (int j = 0; j < 4; j++) {
        int column = 4 * (thread >> 5) + j;
        const uint4* weight = (const uint4*)p.out_weight + column * (WIDTH / 8) + lane;
        float sum = 0.0f;
        for (int i = 0; i < 4; i++) {
            uint4 w = weight[32 * i];
            sum += bf16_low(v[i].x) * bf16_low(w.x) + bf16_high(v[i].x) * bf16_high(w.x);
            sum += bf16_low(v[i].y) * bf16_low(w.y) + bf16_high(v[i].y) * bf16_high(w.y);
            sum += bf16_low(v[i].z) * bf16_low(w.z) + bf16_high(v[i].z) * bf16_high(w.z);
            sum += bf16_low(v[i].w) * bf16_low(w.w) + bf16_high(v[i].w) * bf16_high(w.w);
        }
        for (int i = 16; i; i >>= 1) sum += __shfl_xor_sync(~0u, sum, i);
        if (lane == 0) {
            float* at = p.latents + ((u64)step * p.rows + block) * ACTIONS + column;
            float velocity = sum * r + p.out_shift[step * ACTIONS + column];
            at[(u64)p.rows * ACTIONS] = __ldcg(at) - velocity / p.steps;
        }
    }
    signal(p.counters, MOVED);
}
