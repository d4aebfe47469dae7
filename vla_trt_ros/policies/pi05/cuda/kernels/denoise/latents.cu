// Latents: what the last stream of a step makes of them.

// latents[step + 1] = latents[step] + dt * velocity: a row a block, whose sum of squares is in
// PARTS_OF_SUM numbers from `squares` on.
template <int PARTS_OF_SUM>
__device__ __forceinline__ void Block::move_latents(int step, const float* squares) {
    int lane = thread & 31;
    float total = 0.0f;
    for (int i = lane; i < PARTS_OF_SUM; i += 32) total += __ldcg(squares + i);
    for (int i = 16; i; i >>= 1) total += __shfl_xor_sync(~0u, total, i);
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
