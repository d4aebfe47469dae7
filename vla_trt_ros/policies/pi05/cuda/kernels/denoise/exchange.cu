// Signals between blocks, and data that says itself whether it is there.

// The threads that compute; one more warp brings weights, another keeps order.
__device__ __forceinline__ void together() { asm volatile("bar.sync 1, 256;" ::: "memory"); }

// Whether any of them says so.
__device__ __forceinline__ bool together_any(bool mine) {
    u32 any;
    asm volatile(
        "{.reg .pred p, q;\n setp.ne.u32 p, %1, 0;\n bar.red.or.pred q, 1, 256, p;\n"
        "selp.u32 %0, 1, 0, q;}"
        : "=r"(any)
        : "r"((u32)mine)
        : "memory");
    return any;
}

// One thread: what it has seen is visible to whom waits for `counter`.
__device__ __forceinline__ void count(u32* counters, int counter) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counters + 32 * counter)
                 : "memory");
}

// One thread: that something was stored, before it may be seen.
__device__ __forceinline__ void hint(u32* counters, int counter) {
    asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(counters + 32 * counter)
                 : "memory");
}

// The threads that compute: they are past the place that `counter` counts. They do not wait; the
// warp that keeps order does, and counts.
__device__ __forceinline__ void pass(int counter) {
    asm volatile("bar.arrive %0, 288;" ::"r"(2 + counter) : "memory");
}
__device__ __forceinline__ void passed(int counter) {
    asm volatile("bar.sync %0, 288;" ::"r"(2 + counter) : "memory");
}

// Cycles, seconds of them: what does not come by then is a fault; stop, do not hang.
constexpr long long PATIENCE = 1ll << 33;

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

// Nothing where `wanted` is false, and no branch.
__device__ __forceinline__ void look_if(bool wanted, const void* at, uint4& v) {
    asm volatile(
        "{.reg .pred p;\n setp.ne.u32 p, %5, 0;\n"
        "@p ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];}"
        : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
        : "l"(at), "r"((u32)wanted)
        : "memory");
}

// One thread, until a counter is at its target.
template <typename Look>
__device__ __forceinline__ void await_count(Look look, u32 target) {
    long long begin = clock64();
    while ((int)(look() - target) < 0)
        if (clock64() - begin > PATIENCE) __trap();
}
__device__ __forceinline__ void wait_for(const u32* counters, int counter, u32 target) {
    await_count(
        [&] {
            u32 seen;
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                         : "=r"(seen)
                         : "l"(counters + 32 * counter)
                         : "memory");
            return seen;
        },
        target);
}
__device__ __forceinline__ void wait_for_hint(const u32* counters, int counter, u32 target) {
    await_count(
        [&] {
            u32 seen;
            look(counters + 32 * counter, seen);
            return seen;
        },
        target);
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
