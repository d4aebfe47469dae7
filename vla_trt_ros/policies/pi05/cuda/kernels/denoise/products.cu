// The four products of a layer: 64 rows, the two warpgroups share the inner dimension or columns.

// CHUNKS chunks of the inner dimension.
template <int N, int CHUNKS>
__device__ __forceinline__ void product(float (&d)[N / 2], u32 a, u32 b) {
    u64 left = tile(a), right = tile(b);
    begin_products();
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
        for (int k = 0; k < 4; k++)
            multiply_fp8(d, left + (chunk * CHUNK + k * 32) / 16,
                         right + (chunk * CHUNK + k * 32) / 16, chunk + k);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// The two warpgroups' halves of the inner dimension are added; each keeps half of the columns, in
// d[0 .. N / 4). Behind this nobody reads the operands any more. Not if any thread had something
// `missing`, which is returned.
template <int N>
__device__ __forceinline__ bool join_halves(float (&d)[N / 2], float* exchange,
                                            bool missing = false) {
    constexpr int KEPT = N / 4;
    int group = threadIdx.x >> 7, t = threadIdx.x & 127;
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        exchange[(group * KEPT + i) * 128 + t] = group ? d[i] : d[KEPT + i];
        d[i] = group ? d[KEPT + i] : d[i];
    }
    if (together_any(missing)) return true;
#pragma unroll
    for (int i = 0; i < KEPT; i++) d[i] += exchange[((1 - group) * KEPT + i) * 128 + t];
    return false;
}

// The stream by N columns of weights, chunk by chunk as they come. What came too early has words
// that are not there yet: once more then.
template <int N>
__device__ __forceinline__ void Block::stream_product(float (&d)[N / 2], u32 weights, int place) {
    constexpr int UNITS = HORIZON * 8;  // of a chunk
    int t = thread & 127;
    uint4 squares[4] = {};
    u64 left = tile(base + A), right = tile(base + weights);
    long long begin = clock64();
    while (true) {
        uint4 greatest = {};  // NOT_YET is the greatest of words
#pragma unroll
        for (int i = 0; i < N / 2; i++) d[i] = 0.0f;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int chunk = 4 * group + i;
            wait_bytes(barrier(A_HERE + chunk), a_parity);
            if (!i) look_at_squares(squares, place);
            begin_products();
#pragma unroll
            for (int k = 0; k < 4; k++)
                multiply_fp8(d, left + (chunk * STREAM_CHUNK + k * 32) / 16,
                             right + (chunk * N * 128 + k * 32) / 16, i + k);
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            const uint4* here = (const uint4*)(memory + A + chunk * STREAM_CHUNK);
#pragma unroll
            for (int j = 0; j < (UNITS + 127) / 128; j++) {
                uint4 v = here[min(t + 128 * j, UNITS - 1)];
                greatest.x = max(greatest.x, v.x);
                greatest.y = max(greatest.y, v.y);
                greatest.z = max(greatest.z, v.z);
                greatest.w = max(greatest.w, v.w);
            }
        }
        a_parity ^= 1;
        store_row_scales(squares, place);
        bool again = join_halves<N>(d, exchange(), !is_there(greatest));
        if (!__any_sync(~0u, again)) break;  // which the compiler sees to be one for a warp
        if (clock64() - begin > PATIENCE) __trap();
        if (thread < 32) ask_stream(place);
    }
}

// Norm, QKV, rotation.
__device__ __forceinline__ void Block::heads(int step, int layer) {
    u32 now = turn(step, layer);
    if (block >= QKV_BLOCKS) {
        // No use in looking at what is not there: the others' data would wait for the looks.
        if (thread == 0) {
            if (now) wait_bytes(barrier(PASSED + MIDDLE), (now - 1) & 1);
            wait_for_hint(p.counters, HEADS_STORED, QKV_BLOCKS * now + 1);
        }
        together();
        return;
    }
    int head = block >> 3, pair = (block & 7) * 16 + 8 * group + 2 * lane4;
    const float* scale = p.scales + layer * SCALES + head * DIM + pair;
    const float* shift = p.qkv_shift + (u64)turn(step, layer) * QKV + head * DIM + pair;
    float2 scale0 = *(const float2*)scale, scale1 = *(const float2*)(scale + HALF);
    float2 shift0 = *(const float2*)shift, shift1 = *(const float2*)(shift + HALF);
    float d[16];
    float2 c[2], s[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        u64 at = (u64)(valid + 16 * warp + quad + 8 * half) * HALF + pair;
        c[half] = *(const float2*)(p.cosines + at);
        s[half] = *(const float2*)(p.sines + at);
    }
    wait_bytes(barrier(QKV_HERE), weights_parity);
    stream_product<32>(d, W_QKV, BEGIN);
    if (thread == 0) release(QKV_FREE);
    u8* empty[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = 16 * warp + quad + 8 * half;
        if (row >= HORIZON) continue;
        float r = row_scales()[row];
        float first0 = d[2 * half] * r * scale0.x + shift0.x;
        float second0 = d[2 * half + 1] * r * scale1.x + shift1.x;
        float first1 = d[4 + 2 * half] * r * scale0.y + shift0.y;
        float second1 = d[5 + 2 * half] * r * scale1.y + shift1.y;
        if (head <= HEADS) {
            float2 a = c[half], b = s[half];
            float turned0 = first0 * a.x - second0 * b.x, turned1 = first1 * a.y - second1 * b.y;
            second0 = second0 * a.x + first0 * b.x;
            second1 = second1 * a.y + first1 * b.y;
            first0 = turned0;
            first1 = turned1;
        }
        u32 first = pack_bf16(first0, first1), second = pack_bf16(second0, second1);
        bool query = head < HEADS;
        u8* to = p.workspace + (query ? ROTATED : SUFFIX);
        to += query ? (head * 4 + (pair >> 6)) * CHUNK + swizzled(row, 2 * (pair & 63))
                    : (((head - HEADS) * 64 + row) * DIM + pair) * 2;
        int other = query ? 2 * CHUNK : 2 * HALF, copies = query ? ROTATED_BYTES : SUFFIX_BYTES;
        u8* fill = to + (now & 1) * copies;
        empty[half] = to + (~now & 1) * copies;
        put(fill, first);
        put(fill + other, second);
    }
    if (thread == 0) hint(p.counters, HEADS_STORED);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (16 * warp + quad + 8 * half >= HORIZON) continue;
        put(empty[half], NOT_YET);
        put(empty[half] + (head < HEADS ? 2 * CHUNK : 2 * HALF), NOT_YET);
    }
}

// x += gate * product, by 64 columns a group of blocks and a slice of the inner dimension a block;
// then a block adds up eight rows.
template <int CHUNKS>
__device__ __forceinline__ void Block::add_product(int step, int layer, bool down) {
    Part part = part_of(block, thread);
    int lane = thread & 31, column = part.column;
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
                   part.slice * CHUNKS * CHUNK);
    fence_shared();
    together();
    wait_bytes(barrier(down ? DOWN_HERE : OUT_HERE), weights_parity);
    // A warpgroup keeps half of the columns, in d[0 .. 16).
    constexpr bool HALVES = CHUNKS > 2;  // of the inner dimension; a short one is not worth the sum
    float d[HALVES ? 32 : 16] = {};
    if constexpr (HALVES) {
        u32 half = group * (CHUNKS / 2) * CHUNK;
        product<64, CHUNKS / 2>(d, base + A + half, base + W_DOWN + half);
        join_halves<64>(d, exchange());
        if (thread == 0) release(DOWN_FREE);
    } else {
        product<32, CHUNKS>(d, base + A, base + W_OUT + group * 32 * 128);
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        if (lane == 0) release(OUT_FREE);
    }
    u8* sums = copy_of(SUMS, SUMS_BYTES, down) + part.columns * (SLICES * SLICES * 8 * 64 * 4);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int owner = 2 * warp + half;
        if (8 * owner + quad >= HORIZON) continue;
        u8* to = sums + ((owner * SLICES + part.slice) * 8 + quad) * 256 + group * 128 + lane4 * 16;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float* v = d + 8 * i + 2 * half;
            put(to + 64 * i, __float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[4]),
                __float_as_uint(v[5]));
        }
    }
    if (part.slice < LIVE_SLICES) {
        u8* from = sums + (part.slice * SLICES * 8 + (thread >> 5)) * 256 + lane * 8;
        if (part.row < HORIZON) {
            float2 sum = make_float2(0.0f, 0.0f);
            uint2 v[SLICES];
            await(v, [&](int i) { return from + i * 2048; });
#pragma unroll
            for (int i = 0; i < SLICES; i++) {
                sum.x += __uint_as_float(v[i].x);
                sum.y += __uint_as_float(v[i].y);
            }
            x[0] += sum.x * gain.x * scale.x;
            x[1] += sum.y * gain.y * scale.y;
        }
        store_stream(factor, inverse, !down ? HALFWAY : last ? END : BEGIN);
        if (part.row < HORIZON) {
#pragma unroll
            for (int i = 0; i < SLICES; i++) put(from + i * 2048, NOT_YET, NOT_YET);
        }
    }
    if (!down) clear_parts();
    pass(down ? STREAM : MIDDLE);
}

__device__ __forceinline__ void Block::out(int step, int layer) {
    add_product<2>(step, layer, false);
}
__device__ __forceinline__ void Block::down(int step, int layer) {
    add_product<4>(step, layer, true);
}

// Norm, gate and up, GeGLU.
__device__ __forceinline__ void Block::gate_up(int step, int layer) {
    int column = 32 * block + 16 * group + 4 * lane4;
    const float* scale = p.scales + layer * SCALES + QKV + WIDTH + column;
    const float* shift = p.up_shift + (u64)turn(step, layer) * 2 * MLP + column;
    float4 scales[2] = {*(const float4*)scale, *(const float4*)(scale + MLP)};
    float4 shifts[2] = {*(const float4*)shift, *(const float4*)(shift + MLP)};
    float inverse = p.inverse[4 * layer + 3];
    u32 now = turn(step, layer);
    float d[32];
    wait_bytes(barrier(group ? UP_HERE_TOO : UP_HERE), weights_parity);
    stream_product<64>(d, W_UP, HALFWAY);
    if (thread == 0) release(UP_FREE);
    float gate_scale[4] = {scales[0].x, scales[0].y, scales[0].z, scales[0].w};
    float up_scale[4] = {scales[1].x, scales[1].y, scales[1].z, scales[1].w};
    float gate_shift[4] = {shifts[0].x, shifts[0].y, shifts[0].z, shifts[0].w};
    float up_shift[4] = {shifts[1].x, shifts[1].y, shifts[1].z, shifts[1].w};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = 16 * warp + quad + 8 * half;
        if (row >= HORIZON) continue;
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
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = 16 * warp + quad + 8 * half;
        if (row < HORIZON)
            put(copy_of(HIDDEN, HIDDEN_BYTES, now + 1) + (column >> 7) * CHUNK +
                    swizzled(row, column & 127), NOT_YET);
    }
}
