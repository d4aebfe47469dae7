// Products of tiles by a warpgroup.

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

#define N128                                                                                  \
    N64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,"  \
        "%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,"    \
        "%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,"   \
        "%119,%120,%121,%122,%123,%124,%125,%126,%127"

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

__device__ __forceinline__ void multiply_values(float (&d)[128], u32 a0, u32 a1, u32 a2, u32 a3,
                                                u64 b, int add) {
    asm volatile(
        "{.reg .pred p;\n setp.ne.b32 p, %133, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" N128
        "}, {%128,%129,%130,%131}, %132, p, 1, 1, 1;}"
        : D16(d, 0), D16(d, 16), D16(d, 32), D16(d, 48), D16(d, 64), D16(d, 80), D16(d, 96),
          D16(d, 112)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "r"(add));
}
