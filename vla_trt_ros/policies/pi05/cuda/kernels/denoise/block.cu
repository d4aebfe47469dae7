// What a block knows, and its parts of each phase.

struct Block {
    const Arguments& p;
    u8* memory;  // shared
    u32 base;    // its address
    int block, thread, group, warp, quad, lane4;
    int valid;  // tokens of the prefix
    u32 weights_parity, a_parity;
    float x0, x1;  // the residual stream: row(), columns stream_column() and the next one

    __device__ __forceinline__ u32 barrier(int i) const { return base + MISC + 8 * i; }
    __device__ __forceinline__ float* row_scales() const { return (float*)(memory + MISC + 256); }
    __device__ __forceinline__ float* exchange() const { return (float*)(memory + EXCHANGE); }
    __device__ __forceinline__ int slice() const { return block & 7; }
    __device__ __forceinline__ int columns() const { return block >> 3; }
    __device__ __forceinline__ int live_slices() const { return (p.horizon + 7) / 8; }
    __device__ __forceinline__ int row() const { return 8 * slice() + (thread >> 5); }
    // In the order in which the threads of a product hold its columns.
    __device__ __forceinline__ int stream_column() const {
        int lane = thread & 31;
        return 64 * columns() + (lane >> 3) * 16 + (lane & 1) * 8 + ((lane >> 1) & 3) * 2;
    }
    __device__ __forceinline__ u8* copy_of(int what, int bytes, u32 turn) const {
        return p.workspace + what + (turn & 1) * bytes;
    }

    // What has arrived in shared memory, and what place in it is free again.
    enum {
        A0,
        A1,
        QKV_HERE,  // in the order of `produce`
        OUT_HERE,
        UP_HERE_TOO,
        KEYS_HERE,
        VALUES_HERE,
        UP_HERE,
        DOWN_HERE,
        QKV_FREE,
        OUT_FREE,
        UP_FREE,
        DOWN_FREE,
        KEYS_FREE,
        BARRIERS
    };
    static constexpr int PRODUCER = 256;

    // One thread, when all have used it.
    __device__ __forceinline__ void release(int place) const {
        arrive(barrier(place));
    }

    // Bytes from a chunk of the stream to the next: 16 rows, or all.
    __device__ __forceinline__ bool is_short() const { return p.horizon <= 16; }
    __device__ __forceinline__ u32 stream_stride() const { return is_short() ? CHUNK / 4 : CHUNK; }

    // Thread 0: the stream, half of it for each warpgroup.
    __device__ __forceinline__ void ask_stream() {
        u32 bytes = 4 * stream_stride();
        fence_global();
        for (int half = 0; half < 2; half++) {
            expect(barrier(A0 + half), bytes);
            copy_bulk(base + A + half * bytes, p.workspace + XS + half * bytes, bytes,
                      barrier(A0 + half));
        }
    }

    // Chunks of activations, as soon as they are there.
    template <int CHUNKS>
    __device__ __forceinline__ void gather(const u8* from) {
        int first = min(thread >> 3, p.horizon - 1) * 128 + (thread & 7) * 16;
        uint4 v[CHUNKS];
        if (p.horizon <= 32) {
            await(v, [&](int i) { return from + first + i * CHUNK; });
#pragma unroll
            for (int i = 0; i < CHUNKS; i++) store_shared(base + A + first + i * CHUNK, v[i]);
            return;
        }
        int second = min(32 + (thread >> 3), p.horizon - 1) * 128 + (thread & 7) * 16;
        uint4 w[2 * CHUNKS];
        auto place = [&](int i) { return (i & 1 ? second : first) + (i >> 1) * CHUNK; };
        await(w, [&](int i) { return from + place(i); });
#pragma unroll
        for (int i = 0; i < 2 * CHUNKS; i++) store_shared(base + A + place(i), w[i]);
    }

    template <int N>
    __device__ __forceinline__ void stream_product(float (&d)[N / 2], u32 b) const {
        u32 a = base + A + group * 4 * stream_stride();
        if (is_short())
            product<N, 4, CHUNK / 4>(d, a, b);
        else
            product<N, 4, CHUNK>(d, a, b);
    }

    // 1 / root mean square of each row, from the groups' sums of squares: begun here, ...
    __device__ __forceinline__ void load_squares(float4 (&sums)[4]) const {
        if (thread < 64) {
            const float4* from = (const float4*)(p.workspace + SQUARES) + thread * 4;
            for (int i = 0; i < 4; i++) sums[i] = __ldcg(from + i);
        }
    }
    // ... ended here; visible behind the next together().
    __device__ __forceinline__ void store_row_scales(const float4 (&sums)[4]) const {
        if (thread < 64) {
            float total = 0.0f;
            for (int i = 0; i < 4; i++) total += (sums[i].x + sums[i].y) + (sums[i].z + sums[i].w);
            row_scales()[thread] = rsqrtf(total / WIDTH + EPS);
        }
    }

    __device__ __forceinline__ void begin(int step);
    __device__ __forceinline__ void heads(int step, int layer);
    __device__ __forceinline__ void produce();
    __device__ __forceinline__ void order_keys();
    __device__ __forceinline__ void gather_suffix(const u8* from, int first);
    __device__ __forceinline__ void attend(int step, int layer);
    __device__ __forceinline__ void merge(int step, int layer);
    __device__ __forceinline__ void clear_parts();
    __device__ __forceinline__ void gate_up(int step, int layer);
    template <int CHUNKS>
    __device__ __forceinline__ void add_product(int step, int layer, bool down);
    __device__ __forceinline__ void store_stream(const float* factor, float inverse, bool last);
    __device__ __forceinline__ void euler(int step);
    __device__ __forceinline__ u32 turn(int step, int layer) const {
        return (u32)(step * p.layers + layer);
    }
};
