// Every denoise step of the action expert in one launch: FP8 weights, compute capability 9.0.
//
// 128 blocks stay on the card and pass through four products and attention a layer. A block owns
// the same slice of every weight matrix and asks for the next layer's slice as soon as it has used
// this one's, so that memory streams while blocks wait for each other.
//
// What few blocks read, they wait for on the data itself: a word of all ones is not there yet. No
// result has these bits. The one reader, or the writer two layers on, sets them again. The stream,
// which all blocks read, has counters that only rise; they also order the setting of ones before
// the next use. Sums have a fixed order.
//
// Activations are the 64-row operand of wgmma, rows beyond the horizon hold what is there and end
// nowhere. Tiles of 128 bytes a row stand in memory as wgmma reads them, 16-byte units swizzled.
// persistent.py says what every argument is and puts the weights in order.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr int WIDTH = 1024, MLP = 4096, DIM = 256, HALF = 128, ACTIONS = 32;
constexpr int HEADS = 8, PARTS = 16, PART_KEYS = 64, GROUPS = 16, SLICES = 8;
constexpr int QKV_BLOCKS = 80, QKV = 2560;
constexpr int SCALES = QKV + WIDTH + 2 * MLP + WIDTH;
constexpr float EPS = 1e-6f;
constexpr int CHUNK = 64 * 128;  // 64 rows of 128 bytes

// Bytes of a block's slices, and where they start in a layer's packed weights.
constexpr int QKV_BYTES = 32 * 1024, OUT_BYTES = 16 * 1024, UP_BYTES = 64 * 1024,
              DOWN_BYTES = 32 * 1024;
constexpr u64 OUT_AT = (u64)QKV_BLOCKS * QKV_BYTES;
constexpr u64 UP_AT = OUT_AT + 128ull * OUT_BYTES;
constexpr u64 DOWN_AT = UP_AT + 128ull * UP_BYTES;
constexpr u64 LAYER = DOWN_AT + 128ull * DOWN_BYTES;

// Shared memory. Keys lie where the next layer's QKV weights come; values behind the queries.
constexpr int A = 0, W_QKV = 64 * 1024, W_OUT = W_QKV + QKV_BYTES, W_UP = W_OUT + OUT_BYTES,
              W_DOWN = W_UP + UP_BYTES, EXCHANGE = W_DOWN + DOWN_BYTES,
              MISC = EXCHANGE + 16 * 1024;
constexpr int QUERIES = A, VALUES = A + 32 * 1024, KEYS = W_QKV;

// Workspace in device memory. What has two copies is used in turn.
constexpr int XS = 0, LAST = XS + 8 * CHUNK, SQUARES = LAST + 64 * WIDTH * 2,
              ROTATED = SQUARES + 64 * GROUPS * 4, ROTATED_BYTES = HEADS * 4 * CHUNK,
              SUFFIX = ROTATED + 2 * ROTATED_BYTES, SUFFIX_BYTES = 2 * 64 * DIM * 2,
              ATTENDED = SUFFIX + 2 * SUFFIX_BYTES, ATTENDED_BYTES = 16 * CHUNK,
              HIDDEN = ATTENDED + 2 * ATTENDED_BYTES, HIDDEN_BYTES = 32 * CHUNK,
              LOG_WEIGHTS = HIDDEN + 2 * HIDDEN_BYTES,
              PARTIAL = LOG_WEIGHTS + PARTS * HEADS * 64 * 4,
              SUMS = PARTIAL + PARTS * HEADS * 64 * DIM * 2;

// Counters, 128 bytes apart: the stream in front of a layer, in front of gate and up; latents.
enum Counter { STREAM, MIDDLE, MOVED };

struct Arguments {
    const u8* weights;
    const float *scales, *inverse, *factor, *gate, *qkv_shift, *up_shift, *out_shift;
    const float *in_weight, *in_bias;
    const u16* out_weight;
    const float *cosines, *sines;
    u16 *keys, *values;
    const int* valid;
    float* latents;
    u8* workspace;
    u32* counters;
    int layers, steps, horizon, rows, positions;
};

// --- memory -------------------------------------------------------------------------------------

__device__ __forceinline__ u32 shared_address(const void* p) {
    return (u32)__cvta_generic_to_shared(p);
}

__device__ __forceinline__ void cross_proxies() { asm volatile("fence.proxy.async;" ::: "memory"); }

// Every thread's writes are visible to whom waits for `counter`.
__device__ __forceinline__ void signal(u32* counters, int counter) {
    cross_proxies();
    __syncthreads();
    if (threadIdx.x == 0)
        asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counters + 32 * counter)
                     : "memory");
}

// Cycles, seconds of them: what does not come by then is a fault; stop, do not hang.
constexpr long long PATIENCE = 1ll << 33;

// One thread.
__device__ __forceinline__ void wait_for(u32* counters, int counter, u32 target) {
    long long begin = clock64();
    while (true) {
        u32 seen;
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                     : "=r"(seen)
                     : "l"(counters + 32 * counter)
                     : "memory");
        if ((int)(seen - target) >= 0) return;
        if (clock64() - begin > PATIENCE) __trap();
    }
}

__device__ __forceinline__ void open_barrier(u32 barrier) {
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void wait_bytes(u32 barrier, u32 parity) {
    u32 done = 0;
    while (!done)
        asm volatile(
            "{.reg .pred p;\n mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
            "selp.u32 %0, 1, 0, p;}"
            : "=r"(done)
            : "r"(barrier), "r"(parity)
            : "memory");
}

__device__ __forceinline__ void copy_bulk(u32 to, const void* from, u32 bytes, u32 barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
        ::"r"(to), "l"(from), "r"(bytes), "r"(barrier)
        : "memory");
}

__device__ __forceinline__ void copy_unit(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

constexpr u32 NOT_YET = 0xffffffffu;

__device__ __forceinline__ void put(void* to, u32 a) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(a) : "memory");
}

__device__ __forceinline__ void put(void* to, u32 a, u32 b) {
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(a), "r"(b)
                 : "memory");
}

__device__ __forceinline__ void put(void* to, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(a), "r"(b),
                 "r"(c), "r"(d)
                 : "memory");
}

__device__ __forceinline__ void look(const void* at, u32& v) {
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(at) : "memory");
}

__device__ __forceinline__ void look(const void* at, uint2& v) {
    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];"
                 : "=r"(v.x), "=r"(v.y)
                 : "l"(at)
                 : "memory");
}

__device__ __forceinline__ void look(const void* at, uint4& v) {
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at)
                 : "memory");
}

__device__ __forceinline__ bool is_there(u32 v) { return v != NOT_YET; }
__device__ __forceinline__ bool is_there(uint2 v) { return is_there(v.x) && is_there(v.y); }
__device__ __forceinline__ bool is_there(uint4 v) {
    return is_there(v.x) && is_there(v.y) && is_there(v.z) && is_there(v.w);
}

__device__ __forceinline__ void forget(u32& v) { v = NOT_YET; }
__device__ __forceinline__ void forget(uint2& v) { v = make_uint2(NOT_YET, NOT_YET); }
__device__ __forceinline__ void forget(uint4& v) {
    v = make_uint4(NOT_YET, NOT_YET, NOT_YET, NOT_YET);
}

// Fills v[i] from `at(i)`, where that is not null. Looks at the first until it is there, and only
// then at the others, all at once: looking in vain is traffic that holds up who writes.
template <int N, typename T, typename At>
__device__ __forceinline__ void await(T (&v)[N], At at) {
    long long begin = clock64();
    bool missing;
#pragma unroll
    for (int i = 0; i < N; i++) forget(v[i]);
    while (at(0) && !is_there(v[0])) {
        look(at(0), v[0]);
        if (clock64() - begin > PATIENCE) __trap();
    }
    do {
        missing = false;
#pragma unroll
        for (int i = 1; i < N; i++)
            if (at(i) && !is_there(v[i])) look(at(i), v[i]);
#pragma unroll
        for (int i = 1; i < N; i++) missing = missing || (at(i) && !is_there(v[i]));
        if (clock64() - begin > PATIENCE) __trap();
    } while (missing);
}

__device__ __forceinline__ void store_shared(u32 to, uint4 v) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y),
                 "r"(v.z), "r"(v.w)
                 : "memory");
}

// Where byte `byte` of row `row` stands in a chunk.
__device__ __forceinline__ u32 swizzled(int row, int byte) {
    return row * 128 + ((((byte >> 4) ^ row) & 7) << 4) + (byte & 15);
}

__device__ __forceinline__ u32 pack_bf16(float low, float high) {
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ __forceinline__ u16 pack_fp8(float low, float high) {
    u16 packed;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ __forceinline__ float bf16_low(u32 v) { return __uint_as_float(v << 16); }
__device__ __forceinline__ float bf16_high(u32 v) { return __uint_as_float(v & 0xffff0000u); }

__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// --- products -----------------------------------------------------------------------------------

// Rows of 128 bytes, swizzled. `leading`: bytes from 64 columns to the next where columns run.
__device__ __forceinline__ u64 tile(u32 address, u32 leading = 16) {
    return (u64)((address & 0x3ffff) >> 4) | ((u64)(leading >> 4) << 16) | (64ull << 32) |
           (1ull << 62);
}

__device__ __forceinline__ void begin_products() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void end_products() {
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
}

#define D4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D16(d, i) D4(d, i), D4(d, i + 4), D4(d, i + 8), D4(d, i + 12)
#define N16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define N32 N16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define N64                                                                                \
    N32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51," \
        "%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

__device__ __forceinline__ void multiply_fp8(float (&d)[16], u64 a, u64 b, int add) {
    asm volatile(
        "{.reg .pred p;\n setp.ne.b32 p, %18, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k32.f32.e4m3.e4m3 {" N16 "}, %16, %17, p, 1, 1;}"
        : D16(d, 0)
        : "l"(a), "l"(b), "r"(add));
}

__device__ __forceinline__ void multiply_fp8(float (&d)[32], u64 a, u64 b, int add) {
    asm volatile(
        "{.reg .pred p;\n setp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {" N32 "}, %32, %33, p, 1, 1;}"
        : D16(d, 0), D16(d, 16)
        : "l"(a), "l"(b), "r"(add));
}

// Queries by keys: both lie along the head's columns.
__device__ __forceinline__ void multiply_bf16(float (&d)[32], u64 a, u64 b, int add) {
    asm volatile(
        "{.reg .pred p;\n setp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" N32
        "}, %32, %33, p, 1, 1, 0, 0;}"
        : D16(d, 0), D16(d, 16)
        : "l"(a), "l"(b), "r"(add));
}

// Weights in registers by values, whose columns run.
__device__ __forceinline__ void multiply_values(float (&d)[64], u32 a0, u32 a1, u32 a2, u32 a3,
                                                u64 b, int add) {
    asm volatile(
        "{.reg .pred p;\n setp.ne.b32 p, %69, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" N64
        "}, {%64,%65,%66,%67}, %68, p, 1, 1, 1;}"
        : D16(d, 0), D16(d, 16), D16(d, 32), D16(d, 48)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "r"(add));
}

// This warpgroup's CHUNKS chunks of the inner dimension; those of `a` are `stride` bytes apart.
template <int N, int CHUNKS>
__device__ __forceinline__ void product(float (&d)[N / 2], u32 a, u32 stride, u32 b) {
    u64 left = tile(a), right = tile(b);
    begin_products();
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
        for (int k = 0; k < 4; k++)
            multiply_fp8(d, left + chunk * (stride >> 4) + k * 2,
                         right + (chunk * N * 128 + k * 32) / 16, chunk + k);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// The two warpgroups' halves of the inner dimension are added; each keeps half of the columns, in
// d[0 .. N / 4). Behind this nobody reads the operands any more.
template <int N>
__device__ __forceinline__ void join_halves(float (&d)[N / 2], float* exchange) {
    constexpr int KEPT = N / 4;
    int group = threadIdx.x >> 7, t = threadIdx.x & 127;
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        exchange[(group * KEPT + i) * 128 + t] = group ? d[i] : d[KEPT + i];
        d[i] = group ? d[KEPT + i] : d[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < KEPT; i++) d[i] += exchange[((1 - group) * KEPT + i) * 128 + t];
}

__device__ __forceinline__ float gelu_tanh(float x) {
    float y = 1.5957691216057308f * (x + 0.044715f * x * x * x);
    return x / (1.0f + __expf(-y));
}

// --- one block ----------------------------------------------------------------------------------

struct Block {
    const Arguments& p;
    u8* memory;  // shared
    u32 base;    // its address
    int block, thread, group, warp, quad, lane4;
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

    enum { A0, A1, WEIGHT_QKV, WEIGHT_OUT, WEIGHT_UP, WEIGHT_DOWN, BARRIERS };
    // Whoever signals waits for what it stored; copies are asked for by another thread.
    static constexpr int ASKS = 224;

    // Thread ASKS: this block's slice of a layer's matrix.
    __device__ __forceinline__ void ask(int which, int to, int layer, u64 at, int bytes) {
        cross_proxies();
        expect(barrier(which), bytes);
        copy_bulk(base + to, p.weights + layer * LAYER + at + (u64)block * bytes, bytes,
                  barrier(which));
    }

    __device__ __forceinline__ u32 stream_stride() const { return live_slices() * 1024; }

    // Thread 0: the stream, half of it for each warpgroup.
    __device__ __forceinline__ void ask_stream() {
        u32 bytes = 4 * stream_stride();
        cross_proxies();
        for (int half = 0; half < 2; half++) {
            expect(barrier(A0 + half), bytes);
            copy_bulk(base + A + half * bytes, p.workspace + XS + half * bytes, bytes,
                      barrier(A0 + half));
        }
    }

    // Chunks of activations, as soon as they are there.
    template <int CHUNKS>
    __device__ __forceinline__ void gather(const u8* from) {
        uint4 v[2 * CHUNKS];
        auto place = [&](int i) { return (i >> 1) * CHUNK + (i & 1) * 4096 + thread * 16; };
        auto live = [&](int i) { return (i & 1) * 32 + (thread >> 3) < p.horizon; };
        await(v, [&](int i) { return live(i) ? from + place(i) : nullptr; });
#pragma unroll
        for (int i = 0; i < 2 * CHUNKS; i++)
            if (live(i)) store_shared(base + A + place(i), v[i]);
    }

    // 1 / root mean square of each row, from the groups' sums of squares: begun here, ...
    __device__ __forceinline__ void load_squares(float4 (&sums)[4]) const {
        if (thread < 64) {
            const float4* from = (const float4*)(p.workspace + SQUARES) + thread * 4;
            for (int i = 0; i < 4; i++) sums[i] = __ldcg(from + i);
        }
    }
    // ... ended here; visible behind the next __syncthreads.
    __device__ __forceinline__ void store_row_scales(const float4 (&sums)[4]) const {
        if (thread < 64) {
            float total = 0.0f;
            for (int i = 0; i < 4; i++) total += (sums[i].x + sums[i].y) + (sums[i].z + sums[i].w);
            row_scales()[thread] = rsqrtf(total / WIDTH + EPS);
        }
    }

    __device__ __forceinline__ void begin(int step);
    __device__ __forceinline__ void heads(int step, int layer);
    __device__ __forceinline__ void ask_keys(int layer, int count);
    __device__ __forceinline__ void gather_suffix(const u8* from, int first, u32 to);
    __device__ __forceinline__ void attend(int step, int layer);
    __device__ __forceinline__ void merge(int step, int layer);
    __device__ __forceinline__ void gate_up(int step, int layer);
    template <int CHUNKS>
    __device__ __forceinline__ void add_product(int step, int layer, bool down);
    __device__ __forceinline__ void store_stream(const float* factor, float inverse, bool last);
    __device__ __forceinline__ void euler(int step);
    __device__ __forceinline__ u32 turn(int step, int layer) const {
        return (u32)(step * p.layers + layer);
    }
    __device__ __forceinline__ bool more(int step, int layer) const {
        return step + 1 < p.steps || layer + 1 < p.layers;
    }
    __device__ __forceinline__ int next(int layer) const {
        return layer + 1 < p.layers ? layer + 1 : 0;
    }
};

__device__ __forceinline__ void Block::store_stream(const float* factor, float inverse,
                                                    bool last) {
    int lane = thread & 31, column = stream_column();
    float y0 = x0 * factor[0], y1 = x1 * factor[1];
    float square = x0 * x0 + x1 * x1;
    for (int i = 16; i; i >>= 1) square += __shfl_xor_sync(~0u, square, i);
    if (row() >= p.horizon) return;
    if (lane == 0) ((float*)(p.workspace + SQUARES))[row() * GROUPS + columns()] = square;
    if (last)
        ((u32*)(p.workspace + LAST))[(row() * WIDTH + column) / 2] = pack_bf16(y0, y1);
    else
        *(u16*)(p.workspace + XS + (column >> 7) * stream_stride() +
                swizzled(row(), column & 127)) =
            pack_fp8(y0 * inverse, y1 * inverse);
}

// Latents -> stream.
__device__ __forceinline__ void Block::begin(int step) {
    int lane = thread & 31, column = stream_column();
    if (step) {
        if (thread == 0) wait_for(p.counters, MOVED, step * p.horizon);
        __syncthreads();
    }
    if (slice() < live_slices()) {
        float latent = 0.0f;
        if (row() < p.horizon)
            latent = __ldcg(p.latents + ((u64)step * p.rows + row()) * ACTIONS + lane);
        x0 = p.in_bias[column];
        x1 = p.in_bias[column + 1];
        for (int k = 0; k < ACTIONS; k++) {
            float v = __shfl_sync(~0u, latent, k);
            x0 += v * p.in_weight[column * ACTIONS + k];
            x1 += v * p.in_weight[(column + 1) * ACTIONS + k];
        }
        store_stream(p.factor + (u64)step * (2 * p.layers + 1) * WIDTH + column, p.inverse[0],
                     false);
    }
    signal(p.counters, STREAM);
}

// Norm, QKV, rotation.
__device__ __forceinline__ void Block::heads(int step, int layer) {
    if (thread == 0) {
        wait_for(p.counters, STREAM, gridDim.x * (step * (p.layers + 1) + layer + 1));
        if (block < QKV_BLOCKS) ask_stream();
    }
    if (block >= QKV_BLOCKS) {
        __syncthreads();
        return;
    }
    __syncwarp();
    int head = block >> 3, pair = (block & 7) * 16 + 8 * group + 2 * lane4;
    const float* scale = p.scales + layer * SCALES + head * DIM + pair;
    const float* shift = p.qkv_shift + (u64)turn(step, layer) * QKV + head * DIM + pair;
    float2 scale0 = *(const float2*)scale, scale1 = *(const float2*)(scale + HALF);
    float2 shift0 = *(const float2*)shift, shift1 = *(const float2*)(shift + HALF);
    int start = *p.valid;
    float d[16] = {};
    float4 squares[4];
    wait_bytes(barrier(WEIGHT_QKV), weights_parity);
    wait_bytes(barrier(A0 + group), a_parity);
    a_parity ^= 1;
    load_squares(squares);
    product<32, 4>(d, base + A + group * 4 * stream_stride(), stream_stride(), base + W_QKV + group * 4 * 32 * 128);
    store_row_scales(squares);
    join_halves<32>(d, exchange());
    u32 now = turn(step, layer);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = 16 * warp + quad + 8 * half;
        if (row >= p.horizon) continue;
        float r = row_scales()[row];
        float first0 = d[2 * half] * r * scale0.x + shift0.x;
        float second0 = d[2 * half + 1] * r * scale1.x + shift1.x;
        float first1 = d[4 + 2 * half] * r * scale0.y + shift0.y;
        float second1 = d[5 + 2 * half] * r * scale1.y + shift1.y;
        u64 at = (u64)(start + row) * HALF + pair;
        if (head <= HEADS) {
            float2 c = *(const float2*)(p.cosines + at), s = *(const float2*)(p.sines + at);
            float turned0 = first0 * c.x - second0 * s.x, turned1 = first1 * c.y - second1 * s.y;
            second0 = second0 * c.x + first0 * s.x;
            second1 = second1 * c.y + first1 * s.y;
            first0 = turned0;
            first1 = turned1;
        }
        u32 first = pack_bf16(first0, first1), second = pack_bf16(second0, second1);
        bool query = head < HEADS;
        u8* to = p.workspace + (query ? ROTATED : SUFFIX);
        to += query ? (head * 4 + (pair >> 6)) * CHUNK + swizzled(row, 2 * (pair & 63))
                    : (((head - HEADS) * 64 + row) * DIM + pair) * 2;
        int other = query ? 2 * CHUNK : 2 * HALF, copies = query ? ROTATED_BYTES : SUFFIX_BYTES;
        u8 *fill = to + (now & 1) * copies, *empty = to + (~now & 1) * copies;
        put(fill, first);
        put(fill + other, second);
        put(empty, NOT_YET);
        put(empty + other, NOT_YET);
    }
}

// Keys and values of the prefix, `count` in all, that are this block's: 64 columns a chunk.
__device__ __forceinline__ void Block::ask_keys(int layer, int count) {
    int start = (block >> 3) * PART_KEYS;
    u64 first = ((u64)layer * p.positions + start) * DIM;
    for (int i = thread; i < PART_KEYS * 32; i += 256) {
        int key = i >> 5, unit = i & 31;
        if (start + key >= count) break;
        u32 to = base + (unit >> 3) * CHUNK + swizzled(key, (unit & 7) * 16);
        copy_unit(to + KEYS, p.keys + first + key * DIM + unit * 8);
        copy_unit(to + VALUES, p.values + first + key * DIM + unit * 8);
    }
}

// Keys, or values, of the suffix, whose first is this part's key `first`; zeros behind them.
__device__ __forceinline__ void Block::gather_suffix(const u8* from, int first, u32 to) {
    uint4 v[8];
    int unit = thread & 31;
    auto row = [&](int i) { return 8 * i + (thread >> 5) - first; };
    await(v, [&](int i) {
        bool live = row(i) >= 0 && row(i) < p.horizon;
        return live ? from + row(i) * DIM * 2 + unit * 16 : nullptr;
    });
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (row(i) < 0) continue;
        if (row(i) >= p.horizon) v[i] = make_uint4(0, 0, 0, 0);
        u32 at = (unit >> 3) * CHUNK + swizzled(8 * i + (thread >> 5), (unit & 7) * 16);
        store_shared(base + to + at, v[i]);
    }
}

// The horizon's rows of one head to one part of the keys.
__device__ __forceinline__ void Block::attend(int step, int layer) {
    int head = block & 7, part = block >> 3;
    int prefix = *p.valid, keys = prefix + p.horizon;
    u32 now = turn(step, layer);
    bool asks = thread == ASKS && block < QKV_BLOCKS && more(step, layer);
    if (part * PART_KEYS >= keys) {
        if (asks) ask(WEIGHT_QKV, W_QKV, next(layer), 0, QKV_BYTES);
        return;
    }
    ask_keys(layer, prefix);
    gather<4>(copy_of(ROTATED, ROTATED_BYTES, now) + head * 4 * CHUNK);
    if ((part + 1) * PART_KEYS > prefix) {
        const u8* from = copy_of(SUFFIX, SUFFIX_BYTES, now);
        gather_suffix(from, prefix - part * PART_KEYS, KEYS);
        gather_suffix(from + SUFFIX_BYTES / 2, prefix - part * PART_KEYS, VALUES);
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
    cross_proxies();
    __syncthreads();

    float s[32] = {};
    begin_products();
#pragma unroll
    for (int k = 0; k < 16; k++) {
        u32 at = (k >> 2) * CHUNK + (k & 3) * 32;
        multiply_bf16(s, tile(base + QUERIES + at), tile(base + KEYS + at), k);
    }
    end_products();
    constexpr float SCALE = 1.4426950408889634f / 16.0f;
    float top[2] = {-1e30f, -1e30f}, weight[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < 32; i++) {
        int key = part * PART_KEYS + (i >> 2) * 8 + 2 * lane4 + (i & 1);
        s[i] = key < keys ? s[i] * SCALE : -1e30f;
        top[(i >> 1) & 1] = fmaxf(top[(i >> 1) & 1], s[i]);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        top[half] = fmaxf(top[half], __shfl_xor_sync(~0u, top[half], 1));
        top[half] = fmaxf(top[half], __shfl_xor_sync(~0u, top[half], 2));
    }
#pragma unroll
    for (int i = 0; i < 32; i++) {
        s[i] = power_of_two(s[i] - top[(i >> 1) & 1]);
        weight[(i >> 1) & 1] += s[i];
    }
    u32 w[16];
#pragma unroll
    for (int i = 0; i < 16; i++) w[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
    float o[64] = {};
    begin_products();
#pragma unroll
    for (int k = 0; k < 4; k++)
        multiply_values(o, w[4 * k], w[4 * k + 1], w[4 * k + 2], w[4 * k + 3],
                        tile(base + VALUES + group * 2 * CHUNK + k * 2048, CHUNK), k);
    end_products();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        weight[half] += __shfl_xor_sync(~0u, weight[half], 1);
        weight[half] += __shfl_xor_sync(~0u, weight[half], 2);
        int row = 16 * warp + quad + 8 * half;
        if (row >= p.horizon) continue;
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
    __syncthreads();
    if (asks) ask(WEIGHT_QKV, W_QKV, next(layer), 0, QKV_BYTES);
}

// The parts of a head's attention, some rows in each of its 16 blocks.
__device__ __forceinline__ void Block::merge(int step, int layer) {
    int head = block & 7, owner = block >> 3, per = (p.horizon + PARTS - 1) / PARTS;
    if (owner * per >= p.horizon) return;
    int parts = (*p.valid + p.horizon + PART_KEYS - 1) / PART_KEYS;
    float inverse = p.inverse[4 * layer + 1];
    u32 now = turn(step, layer);
    int row = owner * per + (thread >> 6), column = 4 * (thread & 63);
    bool mine = (thread >> 6) < per && row < p.horizon;
    u8* weights = p.workspace + LOG_WEIGHTS + (head * 64 + row) * 4;
    u8* from = p.workspace + PARTIAL + ((head * 64 + row) * DIM + column) * 2;
    constexpr int NEXT = HEADS * 64;
    u32 w[PARTS];
    uint2 v[PARTS];
    await(v, [&](int i) { return mine && i < parts ? from + i * NEXT * DIM * 2 : nullptr; });
    await(w, [&](int i) { return mine && i < parts ? weights + i * NEXT * 4 : nullptr; });
    if (mine) {
        float top = -1e30f;
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            if (i >= parts) w[i] = __float_as_uint(-1e30f), v[i] = make_uint2(0, 0);
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
    __syncthreads();  // a weight has several readers
    if (!mine) return;
    for (int i = 0; i < parts; i++) {
        put(from + i * NEXT * DIM * 2, NOT_YET, NOT_YET);
        if (column == 0) put(weights + i * NEXT * 4, NOT_YET);
    }
}

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
    cross_proxies();
    __syncthreads();
    float d[32] = {};
    wait_bytes(barrier(down ? WEIGHT_DOWN : WEIGHT_OUT), weights_parity);
    product<64, CHUNKS / 2>(d, base + A + group * (CHUNKS / 2) * CHUNK, CHUNK,
                            base + (down ? W_DOWN : W_OUT) + group * (CHUNKS / 2) * CHUNK);
    join_halves<64>(d, exchange());
    if (thread == ASKS && more(step, layer)) {
        if (down)
            ask(WEIGHT_DOWN, W_DOWN, next(layer), DOWN_AT, DOWN_BYTES);
        else
            ask(WEIGHT_OUT, W_OUT, next(layer), OUT_AT, OUT_BYTES);
    }
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
    wait_bytes(barrier(WEIGHT_UP), weights_parity);
    wait_bytes(barrier(A0 + group), a_parity);
    a_parity ^= 1;
    load_squares(squares);
    product<64, 4>(d, base + A + group * 4 * stream_stride(), stream_stride(),
                   base + W_UP + group * 4 * CHUNK);
    store_row_scales(squares);
    join_halves<64>(d, exchange());
    if (thread == ASKS && more(step, layer)) ask(WEIGHT_UP, W_UP, next(layer), UP_AT, UP_BYTES);
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

// latents[step + 1] = latents[step] + dt * velocity: a row a block.
__device__ __forceinline__ void Block::euler(int step) {
    if (block >= p.horizon) return;
    if (thread == 0)
        wait_for(p.counters, STREAM, gridDim.x * (step + 1) * (p.layers + 1));
    __syncthreads();
    int lane = thread & 31;
    float total = 0.0f;
    for (int i = 0; i < GROUPS; i++)
        total += __ldcg((const float*)(p.workspace + SQUARES) + block * GROUPS + i);
    float r = rsqrtf(total / WIDTH + EPS);
    const uint4* from = (const uint4*)(p.workspace + LAST) + block * (WIDTH / 8) + lane;
    uint4 v[4];
    for (int i = 0; i < 4; i++) v[i] = __ldcg(from + 32 * i);
    for (int j = 0; j < 4; j++) {
        int column = 4 * (thread >> 5) + j;
        const uint4* weight = (const uint4*)p.out_weight + column * (WIDTH / 8) + lane;
        float sum = 0.0f;
        for (int i = 0; i < 4; i++) {
            uint4 w = weight[32 * i];
            sum += bf16_low(v[i].x) * bf16_low(w.x) + bf16_high(v[i].x) * bf16_high(w.x);
            sum += bf16_low(v[i].y) * bf16_low(w.y) + bf16_high(v[i].y) * bf16_high(w.y);
            sum += bf16_low(v[i].z) * bf16_low(w.z) + bf16_high(v[i].z) * bf16_high(w.z);
            sum += bf16_low(v[i].w) * bf16_low(w.w) + bf16_high(v[i].w) * bf16_high(w.w);
        }
        for (int i = 16; i; i >>= 1) sum += __shfl_xor_sync(~0u, sum, i);
        if (lane == 0) {
            float* at = p.latents + ((u64)step * p.rows + block) * ACTIONS + column;
            float velocity = sum * r + p.out_shift[step * ACTIONS + column];
            at[(u64)p.rows * ACTIONS] = __ldcg(at) - velocity / p.steps;
        }
    }
    signal(p.counters, MOVED);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    denoise(const __grid_constant__ Arguments p) {
    extern __shared__ u8 raw[];
    u32 start = shared_address(raw), base = (start + 1023) & ~1023u;
    int thread = threadIdx.x;
    Block b{p, raw + (base - start), base, (int)blockIdx.x, thread, thread >> 7,
            (thread >> 5) & 3, (thread & 31) >> 2, thread & 3, 0, 0, 0.0f, 0.0f};
    if (thread == Block::ASKS) {
        for (int i = 0; i < Block::BARRIERS; i++) open_barrier(b.barrier(i));
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        if (b.block < QKV_BLOCKS) b.ask(Block::WEIGHT_QKV, W_QKV, 0, 0, QKV_BYTES);
        b.ask(Block::WEIGHT_OUT, W_OUT, 0, OUT_AT, OUT_BYTES);
        b.ask(Block::WEIGHT_UP, W_UP, 0, UP_AT, UP_BYTES);
        b.ask(Block::WEIGHT_DOWN, W_DOWN, 0, DOWN_AT, DOWN_BYTES);
    }
    __syncthreads();
    for (int step = 0; step < p.steps; step++) {
        b.begin(step);
        for (int layer = 0; layer < p.layers; layer++) {
            b.heads(step, layer);
            b.attend(step, layer);
            b.merge(step, layer);
            b.add_product<2>(step, layer, false);
            b.gate_up(step, layer);
            b.add_product<4>(step, layer, true);
            b.weights_parity ^= 1;
        }
        b.euler(step);
    }
}
