// Every denoise step of the action expert in one launch: FP8 weights, compute capability 9.0.
//
// 128 blocks stay on the card and pass through four products and attention a layer. A block owns
// the same slice of every weight matrix and asks for the next layer's slice as soon as it has used
// this one's, so that memory streams while blocks wait for each other.
//
// What few blocks read, they wait for on the data itself: a word of all ones is not there yet. No
// result has these bits. The one reader, or the writer a layer on, sets them again. The stream,
// which all blocks read, has counters that only rise; they also order the setting of ones before
// the next use. Sums have a fixed order.
//
// Activations are the 64-row operand of wgmma, rows beyond the horizon hold what is there and end
// nowhere. Tiles of 128 bytes a row stand in memory as wgmma reads them, 16-byte units swizzled.
// persistent.py says what every argument is and puts the weights in order.

#include "hopper/memory.cu"
#include "hopper/values.cu"
#include "hopper/products.cu"
#include "denoise/layout.cu"
#include "denoise/exchange.cu"
#include "denoise/products.cu"
#include "denoise/block.cu"
#include "denoise/stream.cu"
#include "denoise/loads.cu"
#include "denoise/attention.cu"
#include "denoise/products_of_layer.cu"

extern "C" __global__ void __launch_bounds__(384, 1)
    denoise(const __grid_constant__ Arguments p) {
    extern __shared__ u8 raw[];
    u32 start = shared_address(raw), base = (start + 1023) & ~1023u;
    int thread = threadIdx.x;
    Block b{p, raw + (base - start), base, (int)blockIdx.x, thread, thread >> 7,
            (thread >> 5) & 3, (thread & 31) >> 2, thread & 3, *p.valid, 0, 0, 0.0f, 0.0f};
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
                b.add_product<2>(step, layer, false);
                b.gate_up(step, layer);
                b.add_product<4>(step, layer, true);
                b.weights_parity ^= 1;
            }
            b.euler(step);
        }
    }
}
