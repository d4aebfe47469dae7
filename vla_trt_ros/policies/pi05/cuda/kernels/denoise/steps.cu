// The kernel: all steps.

extern "C" __global__ void __launch_bounds__(384, 1)
    denoise(const __grid_constant__ Arguments p) {
    extern __shared__ u8 raw[];
    u32 start = shared_address(raw), base = (start + 1023) & ~1023u;
    int thread = threadIdx.x;
    Block b{p, raw + (base - start), base, (int)blockIdx.x, thread, thread >> 7,
            (thread >> 5) & 3, (thread & 31) >> 2, thread & 3, *p.valid, 0, 0, {}};
    if (thread == 0) {
        for (int i = 0; i < Block::BARRIERS; i++) open_barrier(b.barrier(i));
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (thread >= Block::PRODUCER) {
        give_registers();
        if (thread == Block::PRODUCER) b.produce();
    } else {
        take_registers();
        for (int step = 0; step < p.steps; step++) {
            b.begin(step);
            for (int layer = 0; layer < p.layers; layer++) {
                b.heads(step, layer);
                b.attend(step, layer);
                b.merge(step, layer);
                b.out(step, layer);
                b.gate_up(step, layer);
                b.down(step, layer);
                b.weights_parity ^= 1;
            }
            b.euler(step);
        }
    }
}
