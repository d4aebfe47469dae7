// The kernel: all steps.

// One warp: when this block has passed the begin or the middle of a layer it says so to all, and to
// this block's threads when all have. This orders the emptying of places before their next use, half
// a layer on, and does not hold up the data itself.
__device__ __forceinline__ void Block::keep_order() {
    u32 seen[2] = {};
    auto keep = [&](int counter) {
        passed(counter);
        if (thread == ORDERER) {
            count(p.counters, counter);
            seen[counter] += gridDim.x;
            wait_for(p.counters, counter, seen[counter]);
            arrive(barrier(PASSED + counter));
        }
        __syncwarp();
    };
    for (int step = 0; step < p.steps; step++) {
        keep(STREAM);
        for (int layer = 0; layer < p.layers; layer++) {
            keep(MIDDLE);
            keep(STREAM);
        }
    }
}

extern "C" __global__ void __launch_bounds__(384, 1)
    denoise(const __grid_constant__ Arguments p) {
    extern __shared__ u8 raw[];
    u32 start = shared_address(raw), base = (start + 1023) & ~1023u;
    int thread = threadIdx.x;
    Block b{p, raw + (base - start), base, (int)blockIdx.x, thread, thread >> 7,
            (thread >> 5) & 3, (thread & 31) >> 2, thread & 3, *p.valid, 0, {}, 0, 0, {}};
    b.parts = parts_of(b.valid);
    b.keys = keys_of(b.block >> 3, b.parts, b.valid);
    if (thread == 0) {
        for (int i = 0; i < Block::BARRIERS; i++)
            open_barrier(b.barrier(i), i == Block::OUT_FREE ? 8 : 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (thread >= Block::PRODUCER) {
        give_registers();
        if (thread == Block::PRODUCER) b.produce();
        if (thread >> 5 == Block::ORDERER >> 5) b.keep_order();
        if (thread >> 5 == Block::BRINGER >> 5) b.bring_stream();
    } else {
        take_registers();
        for (int step = 0; step < p.steps; step++) {
            b.begin(step);
            for (int layer = 0; layer < p.layers; layer++) {
                b.forget();
                b.heads(step, layer);
                b.forget();
                b.attend(step, layer);
                b.forget();
                b.merge(step, layer);
                b.forget();
                b.out(step, layer);
                b.forget();
                b.gate_up(step, layer);
                b.forget();
                b.down(step, layer);
                b.weights_parity ^= 1;
            }
            b.euler(step);
        }
    }
}
