// Signals between blocks, copies, data that says itself whether it is there.

__device__ __forceinline__ u32 shared_address(const void* p) {
    return (u32)__cvta_generic_to_shared(p);
}

// Ordinary accesses before, those of copies and matrix instructions after. Only the memory meant:
// the general fence waits for much more.
__device__ __forceinline__ void fence_shared() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void fence_global() {
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

// The threads that compute; one more warp brings weights.
__device__ __forceinline__ void together() { asm volatile("bar.sync 1, 256;" ::: "memory"); }

// Every thread's writes are visible to whom waits for `counter`.
__device__ __forceinline__ void signal(u32* counters, int counter) {
    fence_global();
    together();
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
__device__ __forceinline__ bool is_there(uint2 v) { return is_there(v.x) & is_there(v.y); }
__device__ __forceinline__ bool is_there(uint4 v) {
    return is_there(v.x) & is_there(v.y) & is_there(v.z) & is_there(v.w);
}

// Looks at v[i] `at(i)` until all are there. No branches inside: the kernel's code must stay in the
// instruction cache, which threads that have nothing to look at pay with looking at others' units.
template <int N, typename T, typename At>
__device__ __forceinline__ void await(T (&v)[N], At at) {
    long long begin = clock64();
    bool all;
    do {
        all = true;
#pragma unroll
        for (int i = 0; i < N; i++) look(at(i), v[i]);
#pragma unroll
        for (int i = 0; i < N; i++) all &= is_there(v[i]);
        if (clock64() - begin > PATIENCE) __trap();
    } while (!all);
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
