// Attention by parts of the keys; their sum.

// The horizon's rows of one head to one part of the keys.
__device__ __forceinline__ void Block::attend(int step, int layer) {
    int head = block & 7, part = block >> 3;
    u32 now = turn(step, layer);
    if (part >= parts) {
        if (thread == 0) release(KEYS_FREE);
        return;
    }
    // A warp has a row of the suffix's keys or values.
    int unit = thread & 31, values = thread >> 7, row = (thread >> 5) & 3;
    static_assert(SUFFIX_ROWS == 4, "rows of keys and of values are warps of a warpgroup");
    const u8* queries = copy_of(ROTATED, ROTATED_BYTES, now) + head * 4 * CHUNK;
    const u8* suffix = copy_of(SUFFIX, SUFFIX_BYTES, now) + values * (SUFFIX_BYTES / 2) +
                       (keys.suffix_first + row) * DIM * 2 + unit * 16;
    uint4 q[TURNS * 4] = {}, v = {};
    bool has = row < keys.suffix;
    await(
        [&] {
            look_at<4>(q, queries);
            look_if(has, suffix, v);
        },
        [&] { return is_there(q) & is_there(v); });
    store_gathered<4>(q);
    u32 tiles = base + (values ? VALUES : KEYS) + (unit >> 3) * CHUNK;
    if (keys.prefix) {
        wait_bytes(barrier(KEYS_HERE), weights_parity);
        wait_bytes(barrier(VALUES_HERE), weights_parity);
    } else if (values) {
        // Weights of what is in front of the suffix are zero; what is there may be infinite.
        for (int key = row; key < PART_KEYS - keys.suffix; key += 4)
            store_shared(tiles + swizzled(key, (unit & 7) * 16), make_uint4(0, 0, 0, 0));
    }
    if (has) store_shared(tiles + swizzled(PART_KEYS - keys.suffix + row, (unit & 7) * 16), v);
    fence_shared();
    together();

    float s[32] = {};
    begin_products();
    u64 query_tile = tile(base + A), key_tile = tile(base + KEYS);
#pragma unroll
    for (int k = 0; k < 16; k++) {
        int at = ((k >> 2) * CHUNK + (k & 3) * 32) / 16;
        multiply_bf16(s, query_tile + at, key_tile + at, k);
    }
    end_products();
    constexpr float SCALE = 1.4426950408889634f / 16.0f;
    float top[2] = {-1e30f, -1e30f}, weight[2] = {0.0f, 0.0f};
    if (keys.prefix + keys.suffix < PART_KEYS) {
#pragma unroll
        for (int i = 0; i < 32; i++) {
            int key = (i >> 2) * 8 + 2 * lane4 + (i & 1);
            if (key >= keys.prefix && key < PART_KEYS - keys.suffix) s[i] = -1e30f;
        }
    }
#pragma unroll
    for (int i = 0; i < 32; i++) top[(i >> 1) & 1] = fmaxf(top[(i >> 1) & 1], s[i]);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        top[half] = fmaxf(top[half], __shfl_xor_sync(~0u, top[half], 1));
        top[half] = fmaxf(top[half], __shfl_xor_sync(~0u, top[half], 2));
    }
    top[0] *= SCALE;
    top[1] *= SCALE;
#pragma unroll
    for (int i = 0; i < 32; i++) {
        s[i] = power_of_two(s[i] * SCALE - top[(i >> 1) & 1]);
        weight[(i >> 1) & 1] += s[i];
    }
    u32 w[16];
#pragma unroll
    for (int i = 0; i < 16; i++) w[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
    float o[64] = {};
    u64 value_tile = tile(base + VALUES + group * 2 * CHUNK, CHUNK);
    begin_products();
#pragma unroll
    for (int k = 0; k < 4; k++)
        multiply_values(o, w[4 * k], w[4 * k + 1], w[4 * k + 2], w[4 * k + 3],
                        value_tile + k * 128, k);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        weight[half] += __shfl_xor_sync(~0u, weight[half], 1);
        weight[half] += __shfl_xor_sync(~0u, weight[half], 2);
    }
    end_products();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int to_row = 16 * warp + quad + 8 * half;
        if (to_row >= HORIZON) continue;
        float over = 1.0f / weight[half];
        int at = (part * HEADS + head) * 64 + to_row;
        if (group == 0 && lane4 == 0)
            put((u32*)(p.workspace + LOG_WEIGHTS) + at,
                __float_as_uint(top[half] + __log2f(weight[half])));
        // Columns in the order that the thread holds them; persistent.py orders out's alike.
        u8* to = p.workspace + PARTIAL + at * DIM * 2 + group * HALF * 2 + lane4 * 16;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float* v = o + 16 * i + 2 * half;
            put(to + 64 * i, pack_bf16(v[0] * over, v[1] * over),
                pack_bf16(v[4] * over, v[5] * over), pack_bf16(v[8] * over, v[9] * over),
                pack_bf16(v[12] * over, v[13] * over));
        }
    }
    together();
    if (thread == 0) release(KEYS_FREE);
}

// The parts of a head's attention, some rows in each of its 16 blocks.
__device__ __forceinline__ void Block::merge(int step, int layer) {
    int head = block & 7, owner = block >> 3, per = (HORIZON + PARTS - 1) / PARTS;
    if (owner * per >= HORIZON) return;
    float inverse = p.inverse[4 * layer + 1];
    u32 now = turn(step, layer);
    int row = owner * per + (thread >> 6), column = 4 * (thread & 63);
    bool mine = (thread >> 6) < per && row < HORIZON;
    u8* weights = p.workspace + LOG_WEIGHTS + (head * 64 + row) * 4;
    u8* from = p.workspace + PARTIAL + ((head * 64 + row) * DIM + column) * 2;
    constexpr int NEXT_PART = HEADS * 64;
    u32 w[PARTS];
    uint2 v[PARTS];
    if (mine) {
        auto part = [&](int i) { return i < parts ? i : 0; };
        await(
            [&] {
                look(w, [&](int i) { return weights + part(i) * NEXT_PART * 4; });
                look(v, [&](int i) { return from + part(i) * NEXT_PART * DIM * 2; });
            },
            [&] { return is_there(w) & is_there(v); });
    }
    if (mine) {
        float top = -1e30f;
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            if (i >= parts) w[i] = __float_as_uint(-1e30f);
            top = fmaxf(top, __uint_as_float(w[i]));
        }
        float total = 0.0f, sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            float share = power_of_two(__uint_as_float(w[i]) - top);
            total += share;
            sum[0] += share * bf16_low(v[i].x);
            sum[1] += share * bf16_high(v[i].x);
            sum[2] += share * bf16_low(v[i].y);
            sum[3] += share * bf16_high(v[i].y);
        }
        float over = inverse / total;
        u32 packed = pack_fp8(sum[0] * over, sum[1] * over) |
                     (u32)pack_fp8(sum[2] * over, sum[3] * over) << 16;
        int at = (2 * head + (column >> 7)) * CHUNK + swizzled(row, column & 127);
        put(copy_of(ATTENDED, ATTENDED_BYTES, now) + at, packed);
        put(copy_of(ATTENDED, ATTENDED_BYTES, now + 1) + at, NOT_YET);
    }
}

// What `merge` has read: not there yet. Behind together(), for a weight has several readers.
__device__ __forceinline__ void Block::clear_parts() {
    int head = block & 7, owner = block >> 3, per = (HORIZON + PARTS - 1) / PARTS;
    int row = owner * per + (thread >> 6), column = 4 * (thread & 63);
    if ((thread >> 6) >= per || row >= HORIZON) return;
    u8* weights = p.workspace + LOG_WEIGHTS + (head * 64 + row) * 4;
    u8* from = p.workspace + PARTIAL + ((head * 64 + row) * DIM + column) * 2;
#pragma unroll 4
    for (int i = 0; i < parts; i++) {
        put(from + i * HEADS * 64 * DIM * 2, NOT_YET, NOT_YET);
        if (column == 0) put(weights + i * HEADS * 64 * 4, NOT_YET);
    }
}
