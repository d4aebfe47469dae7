// A CUDA kernel as C++: the words of CUDA that it uses, and its grid as loops. KERNEL_FILE is the
// .cu file. Nothing runs side by side here, so it proves arithmetic and addresses, not races.
#define __global__
#define __device__
#define __forceinline__ inline

namespace {
struct Dim3 {
  unsigned x, y, z;
};
Dim3 threadIdx, blockIdx, blockDim, gridDim;
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
}  // namespace

// Arguments as the driver takes them: the address of each.
#define HOST_LAUNCH(name, Word)                                                                 \
  extern "C" void host_##name(const unsigned* grid, const unsigned* block, void** a) {          \
    for_each_thread(grid, block, [&] {                                                          \
      name(*static_cast<Views*>(a[0]), *static_cast<Target*>(a[1]), *static_cast<Word**>(a[2]), \
           *static_cast<Word**>(a[3]));                                                         \
    });                                                                                         \
  }

HOST_LAUNCH(write_images_16, unsigned short)
HOST_LAUNCH(write_images_32, unsigned int)
