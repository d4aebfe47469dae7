// A CUDA kernel as C++: the words of CUDA that it uses, and its grid as loops. KERNEL_FILE is the
// .cu file, KERNELS is HOST_LAUNCH(name) of each of its kernels. Nothing runs side by side here, so it
// proves arithmetic and addresses, not races.
#include <cmath>
#include <cstddef>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline

namespace {
struct Dim3 {
  unsigned x, y, z;
};
Dim3 threadIdx, blockIdx, blockDim, gridDim;

[[maybe_unused]] double __dmul_rn(double a, double b) { return a * b; }
[[maybe_unused]] double __dadd_rn(double a, double b) { return a + b; }
[[maybe_unused]] int atomicAdd(int* to, int value) { return (*to += value) - value; }
[[maybe_unused]] int __float2int_rn(float value) { return static_cast<int>(std::lrint(value)); }
}  // namespace

#include KERNEL_FILE

namespace {
template <typename Body>
void for_each_thread(const unsigned* grid, const unsigned* block, Body body) {
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
        for (threadIdx.z = 0; threadIdx.z < blockDim.z; ++threadIdx.z)
          for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y)
            for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) body();
}

// Arguments as the driver takes them: the address of each.
template <typename... A, std::size_t... I>
void launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, void** a,
            std::index_sequence<I...>) {
  for_each_thread(grid, block, [&] { kernel(*static_cast<A*>(a[I])...); });
}

template <typename... A>
void launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, void** a) {
  launch(kernel, grid, block, a, std::index_sequence_for<A...>());
}
}  // namespace

#define HOST_LAUNCH(name)                                                              \
  extern "C" void host_##name(const unsigned* grid, const unsigned* block, void** a) { \
    launch(name, grid, block, a);                                                      \
  }

KERNELS
