// The three products behind attention.

// x += gate * product, by 64 columns a group of blocks and a slice of the inner dimension a block;
// then a block adds up eight rows.
template <int CHUNKS>
__device__ __forceinline__ void Block::add_product(int step, int layer, bool down) {
    int lane = thread & 31, column = stream_column();
    u32 now = turn(step, layer);
    int norm = step * (2 * p.layers + 1) + 2 * layer + down;
    bool last = down && layer + 1 == p.layers;
    float2 gain = *(const float2*)(p.gate + (u64)norm * WIDTH + column);
    float2 scale = *(const float2*)(p.scales + layer * SCALES + (down ? QKV + WIDTH + 2 * MLP : QKV) +
                                    column);
    float2 factor = *(const float2*)(p.factor + (u64)(norm + 1) * WIDTH + column);
    float inverse = last ? 1.0f : p.inverse[4 * layer + (down ? 4 : 2)];
    gather<CHUNKS>((down ? copy_of(HIDDEN, HIDDEN_BYTES, now)
                         : copy_of(ATTENDED, ATTENDED_BYTES, now)) +
                   slice() * CHUNKS * CHUNK);
    fence_shared();
    together();
    float d[32] = {};
    wait_bytes(barrier(down ? DOWN_HERE : OUT_HERE), weights_parity);
    product<64, CHUNKS / 2, CHUNK>(d, base + A + group * (CHUNKS / 2) * CHUNK,
                            base + (down ? W_DOWN : W_OUT) + group * (CHUNKS / 2) * CHUNK);
    if (!down) clear_parts();
    join_halves<64>(d, exchange());
    if (thread == 0) release(down ? DOWN_FREE : OUT_FREE);
    u8* sums = p.workspace + SUMS + columns() * (SLICES * SLICES * 8 * 64 * 4);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int owner = 2 * warp + half;
        if (8 * owner + quad >= p.horizon) continue;
        u8* to = sums + ((owner * SLICES + slice()) * 8 + quad) * 256 + group * 128 + lane4 * 16;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float* v = d + 8 * i + 2 * half;
            put(to + 64 * i, __float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[4]),
                __float_as_uint(v[5]));
        }
    }
    if (slice() < live_slices() && row() < p.horizon) {
        u8* from = sums + (slice() * SLICES * 8 + (thread >> 5)) * 256 + lane * 8;
        float2 sum = make_float2(0.0f, 0.0f);
        uint2 v[SLICES];
        await(v, [&](int i) { return from + i * 2048; });
#pragma unroll
        for (int i = 0; i < SLICES; i++) {
            sum.x += __uint_as_float(v[i].x);
            sum.y += __uint_as_float(v[i].y);
        }
#pragma unroll
        for (int i = 0; i < SLICES; i++) put(from + i * 2048, NOT_YET, NOT_YET);
        x0 += sum.x * gain.x * scale.x;
        x1 += sum.y * gain.y * scale.y;
        float next_factor[2] = {factor.x, factor.y};
        store_stream(next_factor, inverse, last);
    }
    if (down || slice() < live_slices()) signal(p.counters, down ? STREAM : MIDDLE);
}

// Norm, gate and up, GeGLU.
__device__ __forceinline__ void Block::gate_up(int step, int layer) {
    if (thread == 0) {
        wait_for(p.counters, MIDDLE, 16 * live_slices() * (turn(step, layer) + 1));
        ask_stream();
    }
    __syncwarp();
    int column = 32 * block + 16 * group + 4 * lane4;
    const float* scale = p.scales + layer * SCALES + QKV + WIDTH + column;
    const float* shift = p.up_shift + (u64)turn(step, layer) * 2 * MLP + column;
    float4 scales[2] = {*(const float4*)scale, *(const float4*)(scale + MLP)};
    float4 shifts[2] = {*(const float4*)shift, *(const float4*)(shift + MLP)};
    float inverse = p.inverse[4 * layer + 3];
    u32 now = turn(step, layer);
    float d[32] = {};
    float4 squares[4];
    wait_bytes(barrier(group ? UP_HERE_TOO : UP_HERE), weights_parity);
    wait_bytes(barrier(A0 + group), a_parity);
    a_parity ^= 1;
    load_squares(squares);
    stream_product<64>(d, base + W_UP + group * 4 * CHUNK);
    store_row_scales(squares);
    join_halves<64>(d, exchange());
    if (thread == 0) release(UP_FREE);
    float gate_scale[4] = {scales[0].x, scales[0].y, scales[0].z, scales[0].w};
    float up_scale[4] = {scales[1].x, scales[1].y, scales[1].z, scales[1].w};
    float gate_shift[4] = {shifts[0].x, shifts[0].y, shifts[0].z, shifts[0].w};
    float up_shift[4] = {shifts[1].x, shifts[1].y, shifts[1].z, shifts[1].w};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = 16 * warp + quad + 8 * half;
        if (row >= p.horizon) continue;
        float r = row_scales()[row], h[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float gate = d[4 * i + 2 * half] * r * gate_scale[i] + gate_shift[i];
            float up = d[4 * i + 2 * half + 1] * r * up_scale[i] + up_shift[i];
            h[i] = gelu_tanh(gate) * up * inverse;
        }
        int at = (column >> 7) * CHUNK + swizzled(row, column & 127);
        put(copy_of(HIDDEN, HIDDEN_BYTES, now) + at,
            pack_fp8(h[0], h[1]) | (u32)pack_fp8(h[2], h[3]) << 16);
        put(copy_of(HIDDEN, HIDDEN_BYTES, now + 1) + at, NOT_YET);
    }
}
