// The residual stream. Eight blocks share 64 columns: each adds up eight rows of them, two columns
// a thread, x[0] and x[1], and stores them. The copy engine brings it, which cannot look whether a
// word is there: a product with it does, and asks once more if one is not.

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

enum Place { BEGIN, HALFWAY, END };  // in front of a layer, in its middle, behind the last one

// First what others wait for; then sums of squares, and the other copy is emptied, of which all
// readers have had their use: what is stored here was made of it. All threads that compute.
__device__ __forceinline__ void Block::store_stream(float2 factor, float inverse, int place) {
    Part part = part_of(block, thread);
    int lane = thread & 31, row = part.row, column = part.column;
    float y0 = x[0] * factor.x, y1 = x[1] * factor.y;
    float square = x[0] * x[0] + x[1] * x[1];
    int to = (column >> 7) * STREAM_CHUNK + swizzled(row, column & 127);
    bool mine = row < HORIZON, first = !(lane & 2);
    if (place != END) {
        u32 low = pack_fp8(y0 * inverse, y1 * inverse);
        u32 packed = low | __shfl_xor_sync(~0u, low, 2) << 16;  // the next two columns
        if (mine && first) put(copy_of(XS, XS_BYTES, place) + to, packed);
        together();
        if (thread == 0) hint(p.counters, STREAM_STORED + place);
    } else if (mine) {
        put(p.workspace + LAST + (row * WIDTH + column) * 2, pack_bf16(y0, y1));
    }
    for (int i = 16; i; i >>= 1) square += __shfl_xor_sync(~0u, square, i);
    if (!mine) return;
    int at = (row * GROUPS + part.columns) * 4, other = place == HALFWAY ? BEGIN : HALFWAY;
    if (lane == 0) {
        u8* squares = place == END ? p.workspace + LAST_SQUARES
                                   : copy_of(SQUARES, SQUARES_BYTES, place);
        put(squares + at, __float_as_uint(square));
        put(copy_of(SQUARES, SQUARES_BYTES, other) + at, NOT_YET);
    }
    if (first) put(copy_of(XS, XS_BYTES, other) + to, NOT_YET);
}

// A warp: the stream to A.
__device__ __forceinline__ void Block::ask_stream(int place) const {
    int lane = thread & 31;
    if (lane >= 8) return;
    int chunk = 4 * (lane & 1) + (lane >> 1);  // for both warpgroups at once
    fence_global();
    expect(barrier(A_HERE + chunk), HORIZON * 128);
    copy_bulk(base + A + chunk * STREAM_CHUNK, copy_of(XS, XS_BYTES, place) + chunk * STREAM_CHUNK,
              HORIZON * 128, barrier(A_HERE + chunk));
}

// A warp of its own, for a fence would wait for what a thread that computes has stored. When the
// hint comes, this block is through with A: what it made is in the stream. Nothing of the time
// before can be taken for the stream, since all blocks have passed the place where it was emptied.
__device__ __forceinline__ void Block::bring_stream() const {
    auto bring = [&](int place, u32 now, int counter, u32 seen) {
        if (!(thread & 31)) {
            if (seen) wait_bytes(barrier(PASSED + counter), (seen - 1) & 1);
            wait_for_hint(p.counters, STREAM_STORED + place, 16 * LIVE_SLICES * (now + 1));
        }
        __syncwarp();
        ask_stream(place);
    };
    u32 now = 0;
    for (int step = 0; step < p.steps; step++)
        for (int layer = 0; layer < p.layers; layer++, now++) {
            if (block < QKV_BLOCKS) bring(BEGIN, now, MIDDLE, now);
            bring(HALFWAY, now, STREAM, now + step + 1);
        }
}

// 1 / root mean square of a row from its groups' sums of squares; visible behind the next
// together().
__device__ __forceinline__ void Block::look_at_squares(uint4 (&v)[4], int place) const {
    const u8* from = copy_of(SQUARES, SQUARES_BYTES, place) + thread * GROUPS * 4;
    if (thread < HORIZON) look(v, [&](int i) { return from + 16 * i; });
}
__device__ __forceinline__ void Block::store_row_scales(uint4 (&v)[4], int place) const {
    if (thread >= HORIZON) return;
    long long begin = clock64();
    while (!is_there(v)) {
        look_at_squares(v, place);
        if (clock64() - begin > PATIENCE) __trap();
    }
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; i++)
        total += (__uint_as_float(v[i].x) + __uint_as_float(v[i].y)) +
                 (__uint_as_float(v[i].z) + __uint_as_float(v[i].w));
    row_scales()[thread] = rsqrtf(total / WIDTH + EPS);
}
