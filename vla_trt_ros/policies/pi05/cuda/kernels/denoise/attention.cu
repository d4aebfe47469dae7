// Attention by parts of the keys; their sum.

// Queries to A, and keys and values of the suffix behind those of the prefix, in one wait; `first`:
// the suffix's first key of this part, negative if it is in front.
__device__ __forceinline__ void Block::gather_with_suffix(const u8* queries, const u8* from,
                                                          int first, bool cached) {
    constexpr int UNITS = (2 * HORIZON + 7) / 8;  // eight rows at a time: keys, then values
    uint4 q[TURNS * 4], v[UNITS];
    int unit = thread & 31;
    auto row = [&](int i) { return min(8 * i + (thread >> 5), 2 * HORIZON - 1); };
    await(
        [&] {
            look(q, [&](int i) { return queries + place<4>(i); });
            look(v, [&](int i) {
                int r = row(i), values = r >= HORIZON;
                return from + values * (SUFFIX_BYTES / 2) + (r - values * HORIZON) * DIM * 2 +
                       unit * 16;
            });
        },
        [&] { return is_there(q) & is_there(v); });
    store_gathered<4>(q);
    if (cached) {
        wait_bytes(barrier(KEYS_HERE), weights_parity);
        wait_bytes(barrier(VALUES_HERE), weights_parity);
    }
    u32 column = (unit >> 3) * CHUNK;
#pragma unroll
    for (int i = 0; i < UNITS; i++) {
        int r = row(i), values = r >= HORIZON, key = first + r - values * HORIZON;
        if (key >= 0 && key < PART_KEYS)
            store_shared(base + (values ? VALUES : KEYS) + column + swizzled(key, (unit & 7) * 16),
                         v[i]);
    }
    // Weights of what is behind the suffix are zero; what is there may be anything but infinite.
    for (int key = first + HORIZON + (thread >> 5); key < PART_KEYS; key += 8)
        store_shared(base + VALUES + column + swizzled(key, (unit & 7) * 16),
                     make_uint4(0, 0, 0, 0));
}

// The horizon's rows of one head to one part of the keys.
__device__ __forceinline__ void Block::attend(int step, int layer) {
    int head = block & 7, part = block >> 3;
    int prefix = valid, keys = prefix + HORIZON;
    u32 now = turn(step, layer);
    if (part * PART_KEYS >= keys) {
        if (thread == 0) release(KEYS_FREE);
        return;
    }
    const u8* rotated = copy_of(ROTATED, ROTATED_BYTES, now) + head * 4 * CHUNK;
    bool cached = part * PART_KEYS < prefix;
    if ((part + 1) * PART_KEYS > prefix) {
        gather_with_suffix(rotated, copy_of(SUFFIX, SUFFIX_BYTES, now), prefix - part * PART_KEYS,
                           cached);
    } else {
        gather<4>(rotated);
        wait_bytes(barrier(KEYS_HERE), weights_parity);
        wait_bytes(barrier(VALUES_HERE), weights_parity);
    }
    fence_shared();
    together();

    float s[32] = {};
    begin_products();
    u64 queries = tile(base + A), key_tile = tile(base + KEYS);
#pragma unroll
    for (int k = 0; k < 16; k++) {
        int at = ((k >> 2) * CHUNK + (k & 3) * 32) / 16;
        multiply_bf16(s, queries + at, key_tile + at, k);
    }
    end_products();
    constexpr float SCALE = 1.4426950408889634f / 16.0f;
    float top[2] = {-1e30f, -1e30f}, weight[2] = {0.0f, 0.0f};
    if ((part + 1) * PART_KEYS > keys) {
#pragma unroll
        for (int i = 0; i < 32; i++)
            if (part * PART_KEYS + (i >> 2) * 8 + 2 * lane4 + (i & 1) >= keys) s[i] = -1e30f;
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
    end_products();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        weight[half] += __shfl_xor_sync(~0u, weight[half], 1);
        weight[half] += __shfl_xor_sync(~0u, weight[half], 2);
        int row = 16 * warp + quad + 8 * half;
        if (row >= HORIZON) continue;
        float over = 1.0f / weight[half];
        int at = (part * HEADS + head) * 64 + row;
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
    int parts = (valid + HORIZON + PART_KEYS - 1) / PART_KEYS;
    float inverse = p.inverse[4 * layer + 1];
    u32 now = turn(step, layer);
    int row = owner * per + (thread >> 6), column = 4 * (thread & 63);
    bool mine = (thread >> 6) < per && row < HORIZON;
    u8* weights = p.workspace + LOG_WEIGHTS + (head * 64 + row) * 4;
    u8* from = p.workspace + PARTIAL + ((head * 64 + row) * DIM + column) * 2;
    constexpr int NEXT = HEADS * 64;
    u32 w[PARTS];
    uint2 v[PARTS];
    if (mine) {
        auto part = [&](int i) { return i < parts ? i : 0; };
        await(
            [&] {
                look(w, [&](int i) { return weights + part(i) * NEXT * 4; });
                look(v, [&](int i) { return from + part(i) * NEXT * DIM * 2; });
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
    int parts = (valid + HORIZON + PART_KEYS - 1) / PART_KEYS;
    u8* weights = p.workspace + LOG_WEIGHTS + (head * 64 + row) * 4;
    u8* from = p.workspace + PARTIAL + ((head * 64 + row) * DIM + column) * 2;
#pragma unroll 4
    for (int i = 0; i < parts; i++) {
        put(from + i * HEADS * 64 * DIM * 2, NOT_YET, NOT_YET);
        if (column == 0) put(weights + i * HEADS * 64 * 4, NOT_YET);
    }
}
