// What a block knows, and its parts of each phase.

struct Block {
    const Arguments& p;
    u8* memory;  // shared
    u32 base;    // its address
    int block, thread, group, warp, quad, lane4;
    int valid;  // tokens of the prefix
    u32 weights_parity, a_parity;
    float x[2];  // of the residual stream: row and columns of the thread's Part

    __device__ __forceinline__ u32 barrier(int i) const { return base + MISC + 8 * i; }
    __device__ __forceinline__ float* row_scales() const { return (float*)(memory + MISC + 256); }
    __device__ __forceinline__ float* exchange() const { return (float*)(memory + EXCHANGE); }
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

    static constexpr int TURNS = (HORIZON + 31) / 32;  // of 32 rows, to gather all

    // Chunks of activations, as soon as they are there.
    template <int CHUNKS>
    __device__ __forceinline__ void gather(const u8* from) {
        uint4 v[TURNS * CHUNKS];
        await(v, [&](int i) { return from + place<CHUNKS>(i); });
        store_gathered<CHUNKS>(v);
    }
    template <int CHUNKS>
    __device__ __forceinline__ void store_gathered(const uint4 (&v)[TURNS * CHUNKS]) {
#pragma unroll
        for (int i = 0; i < TURNS * CHUNKS; i++) store_shared(base + A + place<CHUNKS>(i), v[i]);
    }
    // Of a thread's i-th unit of CHUNKS chunks.
    template <int CHUNKS>
    __device__ __forceinline__ int place(int i) const {
        int row = min(i / CHUNKS * 32 + (thread >> 3), HORIZON - 1);
        return row * 128 + (thread & 7) * 16 + i % CHUNKS * CHUNK;
    }

    __device__ __forceinline__ void begin(int step);
    __device__ __forceinline__ void heads(int step, int layer);
    __device__ __forceinline__ void produce();
    __device__ __forceinline__ void order_keys();
    __device__ __forceinline__ void gather_with_suffix(const u8* queries, const u8* from,
                                                       int first, bool cached);
    __device__ __forceinline__ void attend(int step, int layer);
    __device__ __forceinline__ void merge(int step, int layer);
    __device__ __forceinline__ void clear_parts();
    __device__ __forceinline__ void gate_up(int step, int layer);
    __device__ __forceinline__ void out(int step, int layer);
    __device__ __forceinline__ void down(int step, int layer);
    __device__ __forceinline__ void euler(int step);
    template <int PARTS_OF_SUM>
    __device__ __forceinline__ void move_latents(int step, const float* squares);
    __device__ __forceinline__ void ask_stream();
    __device__ __forceinline__ void load_squares(float4 (&sums)[4]) const;
    __device__ __forceinline__ void store_row_scales(const float4 (&sums)[4]) const;
    __device__ __forceinline__ void store_stream(float2 factor, float inverse, bool last);
    template <int CHUNKS>
    __device__ __forceinline__ void add_product(int step, int layer, bool down);
    __device__ __forceinline__ u32 turn(int step, int layer) const {
        return (u32)(step * p.layers + layer);
    }
};
