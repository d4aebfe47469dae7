// Every denoise step of the action expert in one launch, for horizons up to 16: denoise.cu's twin.
//
// What differs: 16 rows by the matrix instructions of a warp, so that a block can have a product's
// whole inner dimension and nothing is added up between blocks; all data says itself whether it is
// there, and no counter is waited for in a layer.
//
// HORIZON is given to the compiler.

constexpr bool SHORT = true;

#include "hopper/memory.cu"
#include "hopper/values.cu"
#include "hopper/products.cu"
#include "denoise/layout.cu"
#include "denoise/exchange.cu"
#include "denoise/block.cu"
#include "denoise/order.cu"
#include "denoise/loads.cu"
#include "denoise/attention.cu"
#include "denoise/latents.cu"
#include "denoise/short_stream.cu"
#include "denoise/short_products.cu"
#include "denoise/steps.cu"
