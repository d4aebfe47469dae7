// Every denoise step of the action expert in one launch: FP8 weights, compute capability 9.0.
//
// 128 blocks stay on the card and pass through four products and attention a layer. A block owns
// the same slice of every weight matrix and asks for the next layer's slice as soon as it has used
// this one's, so that memory streams while blocks wait for each other.
//
// All data that blocks exchange says itself whether it is there: a word of all ones is not yet. No
// result has these bits. Who waits looks again and again. The stream, which all blocks read, comes
// by the copy engine: a counter hints that it may be there, the product looks through what came, and
// asks once more if a word was missing. The one reader, or the writer half a layer or a layer on,
// sets ones again; counters that only rise, on which nobody waits long, order that before the next
// use. Sums have a fixed order.
//
// Activations are the 64-row operand of wgmma, rows beyond the horizon hold what is there and end
// nowhere. Tiles of 128 bytes a row stand in memory as wgmma reads them, 16-byte units swizzled.
// persistent.py says what every argument is and puts the weights in order. HORIZON is given to the
// compiler.

#include "hopper/memory.cu"
#include "hopper/values.cu"
#include "hopper/products.cu"
#include "denoise/layout.cu"
#include "denoise/exchange.cu"
#include "denoise/block.cu"
#include "denoise/loads.cu"
#include "denoise/attention.cu"
#include "denoise/stream.cu"
#include "denoise/latents.cu"
#include "denoise/products.cu"
#include "denoise/steps.cu"
