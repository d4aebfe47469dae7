// The stream of horizons up to 16. A block has 8 columns of it, of all rows: threads 0 to 31 hold
// rows quad and quad + 8, columns 2 * lane4 and the next one, in x[0], x[1] and x[2], x[3].
//
// The stream says itself whether it is there. It has four copies in turn, two a layer; who writes
// one sets the one before, which all have read by then, to ones. It is used again two layers later,
// and attention of the layer between has waited for ORDERED.

constexpr int STREAM_BYTES = 16 * WIDTH, SUMS_OF_ROW = 128;
constexpr int STREAM_SUMS = SUMS, STREAM_SUMS_BYTES = 16 * SUMS_OF_ROW * 4;
constexpr int LAST_SUMS = SUMS + 4 * STREAM_SUMS_BYTES;

// Column 2 * lane4 of this block, of WIDTH.
__device__ __forceinline__ int short_column(int block, int lane4) { return 8 * block + 2 * lane4; }

// Threads 0 to 31: both rows, times the next norm's factor, and their sums of squares. `number` of
// the stream, from 0; `last`: in front of the final norm.
__device__ __forceinline__ void Block::store_short(u32 number, float2 factor, float inverse,
                                                   bool last) {
    float square[2];
    u32 packed[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float a = x[2 * half], b = x[2 * half + 1];
        square[half] = a * a + b * b;
        square[half] += __shfl_xor_sync(~0u, square[half], 1);
        square[half] += __shfl_xor_sync(~0u, square[half], 2);
        a *= factor.x;
        b *= factor.y;
        if (last) {
            if (quad + 8 * half < HORIZON)
                ((u32*)(p.workspace + LAST))[((quad + 8 * half) * WIDTH +
                                              short_column(block, lane4)) / 2] = pack_bf16(a, b);
            continue;
        }
        // Two threads' columns make a word.
        u32 two = pack_fp8(a * inverse, b * inverse);
        u32 others = __shfl_xor_sync(~0u, two, 1);
        packed[half] = lane4 & 1 ? others | two << 16 : two | others << 16;
    }
    // Lanes 0 and 1 of a row's four write its sums, lanes 0 and 2 its words.
    int row = quad + 8 * (lane4 & 1);
    if (lane4 < 2 && row < HORIZON) {
        int at = (row * SUMS_OF_ROW + block) * 4;
        u8* sums = p.workspace + (last ? LAST_SUMS : STREAM_SUMS + (number & 3) * STREAM_SUMS_BYTES);
        put(sums + at, __float_as_uint(lane4 & 1 ? square[1] : square[0]));
    }
    if (last) return;
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (!(lane4 & 1) && quad + 8 * half < HORIZON)
            put(p.workspace + XS + (number & 3) * STREAM_BYTES + (quad + 8 * half) * WIDTH +
                    8 * block + 2 * lane4,
                packed[half]);
}

// Threads 0 to 31: the stream `number`, which all have read, is not there any more.
__device__ __forceinline__ void Block::clear_short(u32 number) {
    int row = quad + 8 * (lane4 & 1);
    if (row >= HORIZON) return;
    if (lane4 < 2)
        put(p.workspace + STREAM_SUMS + (number & 3) * STREAM_SUMS_BYTES +
                (row * SUMS_OF_ROW + block) * 4,
            NOT_YET);
    else
        put(p.workspace + XS + (number & 3) * STREAM_BYTES + row * WIDTH + 8 * block, NOT_YET,
            NOT_YET);
}

// This warp's 128 columns of all rows as the product's operand, and 1 / root mean square of rows
// `warp8` and `warp8` + 8 in row_scales(), visible behind the next together().
__device__ __forceinline__ void Block::take_stream(u32 number, uint4 (&a)[2][2]) {
    int lane = thread & 31, warp8 = thread >> 5;
    const u8* stream = p.workspace + XS + (number & 3) * STREAM_BYTES + warp8 * 128 + lane4 * 16;
    const u8* sums = p.workspace + STREAM_SUMS + (number & 3) * STREAM_SUMS_BYTES + lane * 16;
    uint4 s[2];
    await(
        [&] {
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int half = 0; half < 2; half++)
                    look(stream + i * 64 + min(quad + 8 * half, HORIZON - 1) * WIDTH, a[i][half]);
            look(s, [&](int half) {
                return sums + min(warp8 + 8 * half, HORIZON - 1) * SUMS_OF_ROW * 4;
            });
        },
        [&] { return is_there(a[0]) & is_there(a[1]) & is_there(s); });
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float total = (__uint_as_float(s[half].x) + __uint_as_float(s[half].y)) +
                      (__uint_as_float(s[half].z) + __uint_as_float(s[half].w));
        for (int i = 16; i; i >>= 1) total += __shfl_xor_sync(~0u, total, i);
        if (lane == 0) row_scales()[warp8 + 8 * half] = rsqrtf(total / WIDTH + EPS);
    }
}

// Latents -> stream.
__device__ __forceinline__ void Block::begin(int step) {
    if (!step) {
        order_keys();
        signal(p.counters, MIDDLE);
    } else {
        if (thread == 0) wait_for(p.counters, MOVED, step * HORIZON);
        together();
    }
    if (thread >= 32) return;
    int column = short_column(block, lane4);
    const float4* weight = (const float4*)(p.in_weight + column * ACTIONS);
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = p.in_bias[column + (i & 1)];
#pragma unroll
    for (int k = 0; k < ACTIONS / 4; k++) {
        float4 w[2] = {weight[k], weight[k + ACTIONS / 4]};
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = min(quad + 8 * half, HORIZON - 1);
            const float4* at = (const float4*)(p.latents + ((u64)step * p.rows + row) * ACTIONS);
            float4 v = __ldcg(at + k);
#pragma unroll
            for (int i = 0; i < 2; i++)
                x[2 * half + i] += v.x * w[i].x + v.y * w[i].y + v.z * w[i].z + v.w * w[i].w;
        }
    }
    const float* factor = p.factor + (u64)step * (2 * p.layers + 1) * WIDTH + column;
    store_short(2 * turn(step, 0), *(const float2*)factor, p.inverse[0], false);
}

__device__ __forceinline__ void Block::euler(int step) {
    if (block >= HORIZON) return;
    wait_bytes(barrier(ORDERED), turn(step, p.layers - 1) & 1);
    move_latents<SUMS_OF_ROW>(step, (const float*)(p.workspace + LAST_SUMS) + block * SUMS_OF_ROW);
}
