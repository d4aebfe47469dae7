// Products of tiles by a warpgroup, and how two warpgroups share one.

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

// This warpgroup's CHUNKS chunks of the inner dimension; those of `a` are STRIDE bytes apart.
template <int N, int CHUNKS, int STRIDE>
__device__ __forceinline__ void product(float (&d)[N / 2], u32 a, u32 b) {
    u64 left = tile(a), right = tile(b);
    begin_products();
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
        for (int k = 0; k < 4; k++)
            multiply_fp8(d, left + (chunk * STRIDE + k * 32) / 16,
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
    together();
#pragma unroll
    for (int i = 0; i < KEPT; i++) d[i] += exchange[((1 - group) * KEPT + i) * 128 + t];
}

__device__ __forceinline__ float gelu_tanh(float x) {
    float y = 1.5957691216057308f * (x + 0.044715f * x * x * x);
    return __fdividef(x, 1.0f + __expf(-y));
}
