// Signals between blocks, and data that says itself whether it is there.

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

template <int N, typename T, typename At>
__device__ __forceinline__ void look(T (&v)[N], At at) {
#pragma unroll
    for (int i = 0; i < N; i++) look(at(i), v[i]);
}
template <int N, typename T>
__device__ __forceinline__ bool is_there(const T (&v)[N]) {
    bool all = true;
#pragma unroll
    for (int i = 0; i < N; i++) all &= is_there(v[i]);
    return all;
}

// Looks again and again, at all of it, until `there()`. No branches inside a look: the kernel's code
// must stay in the instruction cache, which threads that have nothing to look at pay with looking at
// others' units.
template <typename Look, typename There>
__device__ __forceinline__ void await(Look look, There there) {
    long long begin = clock64();
    do {
        look();
        if (clock64() - begin > PATIENCE) __trap();
    } while (!there());
}

// v[i] at `at(i)`.
template <int N, typename T, typename At>
__device__ __forceinline__ void await(T (&v)[N], At at) {
    await([&] { look(v, at); }, [&] { return is_there(v); });
}
