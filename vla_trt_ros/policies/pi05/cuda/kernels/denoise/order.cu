// The order of layers where the stream has no counters: what one layer sets to ones, another block
// must not find as it was a layer later. A warp of its own sees to it, beside the work.

// The threads that compute: the layer is done. They do not wait.
__device__ __forceinline__ void end_layer() { asm volatile("bar.arrive 2, 288;" ::: "memory"); }

// A warp: when all blocks have ended a layer, ORDERED has another turn.
__device__ __forceinline__ void Block::keep_order() {
    for (int turn = 0; turn < p.steps * p.layers; turn++) {
        asm volatile("bar.sync 2, 288;" ::: "memory");
        if ((thread & 31) == 0) {
            add_release(p.counters, STREAM);
            wait_for(p.counters, STREAM, gridDim.x * (turn + 1));
            arrive(barrier(ORDERED));
        }
        __syncwarp();
    }
}
