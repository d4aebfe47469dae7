// What a block knows, and its parts of each phase.

// Keys of a part, which stand in a tile of 64: `prefix` of them from the first on, which is the
// `first` of the prefix; `suffix` of them at the end, from the suffix's `suffix_first` on. The
// suffix comes last and whoever has much of it is late, so the last parts have a few rows each.
struct Keys {
    int first, prefix, suffix_first, suffix;
};

constexpr int SUFFIX_ROWS = 4, SUFFIX_PARTS = (HORIZON + SUFFIX_ROWS - 1) / SUFFIX_ROWS;

__device__ __forceinline__ int parts_of(int valid) {
    return max((valid + HORIZON + PART_KEYS - 1) / PART_KEYS, SUFFIX_PARTS);
}

__device__ __forceinline__ Keys keys_of(int part, int parts, int valid) {
    auto from = [&](int p) { return max(p - parts + SUFFIX_PARTS, 0) * HORIZON / SUFFIX_PARTS; };
    int suffix = from(part + 1) - from(part), first = part * PART_KEYS - from(part);
    return {first, min(max(valid - first, 0), PART_KEYS - suffix), from(part), suffix};
}

struct Block {
    const Arguments& p;
    u8* memory;  // shared
    u32 base;    // its address
    int block, thread, group, warp, quad, lane4;
    int valid;  // tokens of the prefix
    int parts;  // of the keys
    Keys keys;  // of this block's part
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
        A_HERE,  // a chunk each
        QKV_HERE = A_HERE + 8,  // in the order of `produce`
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
        PASSED,  // by all blocks, in the order of Counter
        BARRIERS = PASSED + 2
    };
    static constexpr int PRODUCER = 256, ORDERER = 288, BRINGER = 320;

    // One thread, when all have used it; of W_OUT one of each warp.
    __device__ __forceinline__ void release(int place) const { arrive(barrier(place)); }

    static constexpr int TURNS = (HORIZON + 31) / 32;  // of 32 rows, to gather all

    // Chunks of activations, as soon as they are there.
    template <int CHUNKS>
    __device__ __forceinline__ void gather(const u8* from) {
        uint4 v[TURNS * CHUNKS] = {};
        await([&] { look_at<CHUNKS>(v, from); }, [&] { return is_there(v); });
        store_gathered<CHUNKS>(v);
    }
    template <int CHUNKS>
    __device__ __forceinline__ void look_at(uint4 (&v)[TURNS * CHUNKS], const u8* from) const {
#pragma unroll
        for (int i = 0; i < TURNS * CHUNKS; i++)
            if (HORIZON < 32)
                look_if(row<CHUNKS>(i) < HORIZON, from + place<CHUNKS>(i), v[i]);
            else  // few threads have no row of their own: they look at the last
                look(from + place<CHUNKS>(i), v[i]);
    }
    template <int CHUNKS>
    __device__ __forceinline__ void store_gathered(const uint4 (&v)[TURNS * CHUNKS]) const {
#pragma unroll
        for (int i = 0; i < TURNS * CHUNKS; i++) store_shared(base + A + place<CHUNKS>(i), v[i]);
    }
    // Of a thread's i-th unit of CHUNKS chunks.
    template <int CHUNKS>
    __device__ __forceinline__ int row(int i) const {
        int row = i / CHUNKS * 32 + (thread >> 3);
        return HORIZON < 32 ? row : min(row, HORIZON - 1);
    }
    template <int CHUNKS>
    __device__ __forceinline__ int place(int i) const {
        return row<CHUNKS>(i) * 128 + (thread & 7) * 16 + i % CHUNKS * CHUNK;
    }

    // What follows from these numbers is computed afresh from here on, not kept in registers.
    __device__ __forceinline__ void forget() {
        asm volatile("" : "+r"(block), "+r"(thread), "+r"(base), "+l"(memory), "+r"(valid));
        asm volatile("" : "+r"(group), "+r"(warp), "+r"(quad), "+r"(lane4), "+r"(parts));
    }

    // Of the warps that do not compute, one each.
    __device__ __forceinline__ void produce();
    __device__ __forceinline__ void keep_order();
    __device__ __forceinline__ void bring_stream() const;

    __device__ __forceinline__ void begin(int step);
    __device__ __forceinline__ void heads(int step, int layer);
    __device__ __forceinline__ void attend(int step, int layer);
    __device__ __forceinline__ void merge(int step, int layer);
    __device__ __forceinline__ void out(int step, int layer);
    __device__ __forceinline__ void gate_up(int step, int layer);
    __device__ __forceinline__ void down(int step, int layer);
    __device__ __forceinline__ void euler(int step);

    __device__ __forceinline__ void order_keys();
    __device__ __forceinline__ void clear_parts();
    __device__ __forceinline__ void ask_stream(int place) const;
    __device__ __forceinline__ void look_at_squares(uint4 (&v)[4], int place) const;
    __device__ __forceinline__ void store_row_scales(uint4 (&v)[4], int place) const;
    template <int N>
    __device__ __forceinline__ void stream_product(float (&d)[N / 2], u32 weights, int place);
    __device__ __forceinline__ void store_stream(float2 factor, float inverse, int place);
    template <int CHUNKS>
    __device__ __forceinline__ void add_product(int step, int layer, bool down);
    __device__ __forceinline__ u32 turn(int step, int layer) const {
        return (u32)(step * p.layers + layer);
    }
};
