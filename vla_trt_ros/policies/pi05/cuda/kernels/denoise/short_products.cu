// The four products of a layer for horizons up to 16: 16 rows, each warp has an eighth of the inner
// dimension. A warp takes its operand from device memory into registers as soon as it is there.
//
// Weights lie by segments of 64 bytes of the inner dimension, in a segment by columns.

// d[n]: rows quad and quad + 8, columns 8 n + 2 lane4 and the next one.
template <int COLUMNS, int SEGMENTS>
__device__ __forceinline__ void multiply_rows(float (&d)[COLUMNS / 8][4],
                                              const uint4 (&a)[SEGMENTS][2], const u8* weights) {
#pragma unroll
    for (int s = 0; s < SEGMENTS; s++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) {
            uint4 b = *(const uint4*)(weights + (s * COLUMNS + 8 * n) * 64);
            multiply_16_rows(d[n], a[s][0].x, a[s][1].x, a[s][0].y, a[s][1].y, b.x, b.y);
            multiply_16_rows(d[n], a[s][0].z, a[s][1].z, a[s][0].w, a[s][1].w, b.z, b.w);
        }
}

// The warps' products are added up: warp n has columns 8 n to 8 n + 7, if there are so many. Behind
// this nobody reads the weights any more.
template <int COLUMNS>
__device__ __forceinline__ void Block::add_warps(float (&sum)[4],
                                                 const float (&d)[COLUMNS / 8][4]) {
    // Two places: a warp may write its next sums while another still reads these.
    constexpr int TILES = COLUMNS / 8, SHARES = TILES > 1 ? A + 32 * 1024 : A;
    int lane = thread & 31, warp8 = thread >> 5;
    float4* shared = (float4*)(memory + SHARES);
#pragma unroll
    for (int n = 0; n < TILES; n++)
        shared[(warp8 * TILES + n) * 32 + lane] = make_float4(d[n][0], d[n][1], d[n][2], d[n][3]);
    together();
    if (warp8 >= TILES) return;
#pragma unroll
    for (int w = 0; w < 8; w++) {
        float4 v = shared[(w * TILES + warp8) * 32 + lane];
        sum[0] += v.x;
        sum[1] += v.y;
        sum[2] += v.z;
        sum[3] += v.w;
    }
}

// Where this thread's part of a block's weights of `columns` columns begins.
__device__ __forceinline__ const u8* Block::own_weights(int place, int columns,
                                                        int segments) const {
    return memory + place + ((thread >> 5) * segments * columns + quad) * 64 + lane4 * 16;
}

// Norm, QKV, rotation.
__device__ __forceinline__ void Block::heads(int step, int layer) {
    if (block >= QKV_BLOCKS) return;
    int head = block >> 3, warp8 = thread >> 5;
    int pair = (block & 7) * 16 + 4 * (warp8 & 3) + lane4;
    u32 now = turn(step, layer);
    const float* scale = p.scales + layer * SCALES + head * DIM + pair;
    const float* shift = p.qkv_shift + (u64)now * QKV + head * DIM + pair;
    float scale0 = scale[0], scale1 = scale[HALF], shift0 = shift[0], shift1 = shift[HALF];
    float cosine[2], sine[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        u64 at = (u64)(valid + quad + 8 * half) * HALF + pair;
        cosine[half] = p.cosines[at];
        sine[half] = p.sines[at];
    }
    uint4 a[2][2];
    float d[4][4] = {}, sum[4] = {};
    wait_bytes(barrier(QKV_HERE), weights_parity);
    take_stream(2 * now, a);
    multiply_rows<32, 2>(d, a, own_weights(W_QKV, 32, 2));
    add_warps<32>(sum, d);
    if (thread == 0) release(QKV_FREE);
    if (warp8 >= 4) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = quad + 8 * half;
        float r = row_scales()[row];
        float first = sum[2 * half] * r * scale0 + shift0;
        float second = sum[2 * half + 1] * r * scale1 + shift1;
        if (head <= HEADS) {
            float turned = first * cosine[half] - second * sine[half];
            second = second * cosine[half] + first * sine[half];
            first = turned;
        }
        // Even lanes write two pairs' first halves, odd ones their second halves.
        float sent = lane4 & 1 ? first : second;
        float got = __shfl_xor_sync(~0u, sent, 1);
        u32 word = lane4 & 1 ? pack_bf16(got, second) : pack_bf16(first, got);
        if (row >= HORIZON) continue;
        int column = (pair & ~1) + (lane4 & 1) * HALF;
        bool query = head < HEADS;
        u8* to = p.workspace + (query ? ROTATED : SUFFIX);
        to += query ? (head * 4 + (column >> 6)) * CHUNK + swizzled(row, 2 * (column & 63))
                    : (((head - HEADS) * 64 + row) * DIM + column) * 2;
        int copies = query ? ROTATED_BYTES : SUFFIX_BYTES;
        put(to + (now & 1) * copies, word);
        put(to + (~now & 1) * copies, NOT_YET);
    }
}

// x += gate * product, and the next stream of it.
template <int SEGMENTS>
__device__ __forceinline__ void Block::add_short(int step, int layer, bool down) {
    constexpr int DEPTH = SEGMENTS * 64 * 8;
    int column = short_column(block, lane4), warp8 = thread >> 5;
    u32 now = turn(step, layer);
    int norm = step * (2 * p.layers + 1) + 2 * layer + down;
    bool last = down && layer + 1 == p.layers;
    float2 gain = *(const float2*)(p.gate + (u64)norm * WIDTH + column);
    float2 scale = *(const float2*)(p.scales + layer * SCALES +
                                    (down ? QKV + WIDTH + 2 * MLP : QKV) + column);
    float2 factor = *(const float2*)(p.factor + (u64)(norm + 1) * WIDTH + column);
    float inverse = last ? 1.0f : p.inverse[4 * layer + (down ? 4 : 2)];
    const u8* from = (down ? copy_of(HIDDEN, HIDDEN_BYTES, now)
                           : copy_of(ATTENDED, ATTENDED_BYTES, now)) +
                     warp8 * SEGMENTS * 64 + lane4 * 16;
    uint4 a[SEGMENTS][2];
    float d[1][4] = {}, sum[4] = {};
    wait_bytes(barrier(down ? DOWN_HERE : OUT_HERE), weights_parity);
    await(
        [&] {
#pragma unroll
            for (int s = 0; s < SEGMENTS; s++)
#pragma unroll
                for (int half = 0; half < 2; half++)
                    look(from + s * 64 + min(quad + 8 * half, HORIZON - 1) * DEPTH, a[s][half]);
        },
        [&] {
            bool all = true;
#pragma unroll
            for (int s = 0; s < SEGMENTS; s++) all &= is_there(a[s]);
            return all;
        });
    multiply_rows<8, SEGMENTS>(d, a, own_weights(down ? W_DOWN : W_OUT, 8, SEGMENTS));
    add_warps<8>(sum, d);
    if (thread == 0) release(down ? DOWN_FREE : OUT_FREE);
    if (warp8 == 0) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            x[2 * half] += sum[2 * half] * gain.x * scale.x;
            x[2 * half + 1] += sum[2 * half + 1] * gain.y * scale.y;
        }
        store_short(2 * now + 1 + down, factor, inverse, last);
        clear_short(2 * now + down);
    }
    if (!down) clear_parts();
}

__device__ __forceinline__ void Block::out(int step, int layer) {
    add_short<4>(step, layer, false);
}

__device__ __forceinline__ void Block::down(int step, int layer) {
    add_short<8>(step, layer, true);
    end_layer();
}

// Norm, gate and up, GeGLU.
__device__ __forceinline__ void Block::gate_up(int step, int layer) {
    int warp8 = thread >> 5, column = 32 * block + 4 * warp8 + lane4;
    u32 now = turn(step, layer);
    const float* scale = p.scales + layer * SCALES + QKV + WIDTH + column;
    const float* shift = p.up_shift + (u64)now * 2 * MLP + column;
    float gate_scale = scale[0], up_scale = scale[MLP];
    float gate_shift = shift[0], up_shift = shift[MLP];
    float inverse = p.inverse[4 * layer + 3];
    uint4 a[2][2];
    float d[8][4] = {}, sum[4] = {};
    wait_bytes(barrier(UP_HERE), weights_parity);
    wait_bytes(barrier(UP_HERE_TOO), weights_parity);
    take_stream(2 * now + 1, a);
    multiply_rows<64, 2>(d, a, own_weights(W_UP, 64, 2));
    add_warps<64>(sum, d);
    if (thread == 0) release(UP_FREE);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = quad + 8 * half;
        float r = row_scales()[row];
        float gate = sum[2 * half] * r * gate_scale + gate_shift;
        float up = sum[2 * half + 1] * r * up_scale + up_shift;
        float h = gelu_tanh(gate) * up * inverse;
        u32 two = pack_fp8(h, __shfl_down_sync(~0u, h, 1));
        u32 word = two | __shfl_down_sync(~0u, two, 2) << 16;
        if (lane4 || row >= HORIZON) continue;
        int at = row * MLP + column;
        put(copy_of(HIDDEN, HIDDEN_BYTES, now) + at, word);
        put(copy_of(HIDDEN, HIDDEN_BYTES, now + 1) + at, NOT_YET);
    }
}
