// Latents: what the last stream of a step makes of them, and what begins the next one.

// latents[step + 1] = latents[step] + dt * velocity: a row a block, four columns a warp.
__device__ __forceinline__ void Block::euler(int step) {
    if (block >= HORIZON) return;
    int lane = thread & 31, column = 4 * (thread >> 5);
    uint4 weight[4][4];
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            weight[j][i] = ((const uint4*)p.out_weight)[(column + j) * (WIDTH / 8) + lane + 32 * i];
    float* latents = p.latents + ((u64)step * p.rows + block) * ACTIONS + column + lane;
    float latent = 0.0f, shift = 0.0f;
    if (lane < 4) {
        latent = __ldcg(latents);
        shift = p.out_shift[step * ACTIONS + column + lane];
    }
    u8 *last = p.workspace + LAST + block * WIDTH * 2,
       *squares = p.workspace + LAST_SQUARES + block * GROUPS * 4;
    uint4 v[4];
    u32 square;
    await(
        [&] {
            look(v, [&](int i) { return last + (lane + 32 * i) * 16; });
            look(squares + (lane & 15) * 4, square);
        },
        [&] { return is_there(v) & is_there(square); });
    float total = __uint_as_float(square), mine = 0.0f;
    for (int i = 8; i; i >>= 1) total += __shfl_xor_sync(~0u, total, i);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint4 &a = v[i], &w = weight[j][i];
            sum += bf16_low(a.x) * bf16_low(w.x) + bf16_high(a.x) * bf16_high(w.x);
            sum += bf16_low(a.y) * bf16_low(w.y) + bf16_high(a.y) * bf16_high(w.y);
            sum += bf16_low(a.z) * bf16_low(w.z) + bf16_high(a.z) * bf16_high(w.z);
            sum += bf16_low(a.w) * bf16_low(w.w) + bf16_high(a.w) * bf16_high(w.w);
        }
        for (int i = 16; i; i >>= 1) sum += __shfl_xor_sync(~0u, sum, i);
        if (lane == j) mine = sum;
    }
    if (lane < 4) {
        float next = latent - (mine * rsqrtf(total / WIDTH + EPS) + shift) / p.steps;
        int at = (block * ACTIONS + column + lane) * 4;
        if (step + 1 < p.steps) put(copy_of(NEXT, NEXT_BYTES, step) + at, __float_as_uint(next));
        put(copy_of(NEXT, NEXT_BYTES, step + 1) + at, NOT_YET);
        latents[(u64)p.rows * ACTIONS] = next;
    }
    together();  // all have read this row
    put(last + thread * 8, NOT_YET, NOT_YET);
    if (thread < GROUPS) put(squares + thread * 4, NOT_YET);
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
    if (part.slice < LIVE_SLICES) {
        u32 latent[1] = {};
        int at = part.row * ACTIONS + lane;
        if (part.row < HORIZON) {
            if (step)
                await(latent, [&](int) { return copy_of(NEXT, NEXT_BYTES, step - 1) + at * 4; });
            else
                latent[0] = __float_as_uint(__ldcg(p.latents + at));
        }
        x[0] = p.in_bias[column];
        x[1] = p.in_bias[column + 1];
#pragma unroll
        for (int i = 0; i < ACTIONS / 4; i++) {
            const float4 &a = weight[0][i], &b = weight[1][i];
            float v[4];
#pragma unroll
            for (int j = 0; j < 4; j++)
                v[j] = __uint_as_float(__shfl_sync(~0u, latent[0], 4 * i + j));
            x[0] += v[0] * a.x + v[1] * a.y + v[2] * a.z + v[3] * a.w;
            x[1] += v[0] * b.x + v[1] * b.y + v[2] * b.z + v[3] * b.w;
        }
        store_stream(*(const float2*)(p.factor + (u64)step * (2 * p.layers + 1) * WIDTH + column),
                     p.inverse[0], BEGIN);
    }
    // The warp that keeps order has to be through with the step before.
    if (step) wait_bytes(barrier(PASSED + STREAM), (step * (p.layers + 1) - 1) & 1);
    pass(STREAM);
}
