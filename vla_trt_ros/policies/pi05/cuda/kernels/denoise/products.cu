// How the two warpgroups of a block share a product.

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
