// Camera images as they arrived -> the network's input, all views in one launch.
//
// One thread makes one pixel of the output: it decodes the encoding, filters along rows, then along
// columns, as Pillow does (8-bit levels between the two, weights of 22 bits), and looks the three
// levels up in a table, which holds scale and dtype.

#include "pixels.cu"

namespace {

constexpr int MAX_VIEWS = 8;
constexpr int WEIGHT_BITS = 22;

}  // namespace

struct View {
  Frame frame;  // without pixels the view is black
  // Filter of each output column and row, int [2 + taps][new size]: first tap, taps, weights.
  const int* columns;
  const int* rows;
  int new_height, new_width, top, left;  // the picture's place in the output; around it black
};

struct Views {
  View view[MAX_VIEWS];
};

struct Target {
  int height, width;
  int patch;  // 0: planes [view][3][height][width]; else [view][patch][row], a row c, y, x in it
  int row;    // elements from one patch to the next
};

static_assert(sizeof(View) == 80, "images.py has its twin");

namespace {

__device__ __forceinline__ int rounded(int sum) {
  return clamp(sum >> WEIGHT_BITS, 0, 255);
}

// x and y: place inside the resized picture.
template <typename Encoding>
__device__ Level filtered(const View& view, int x, int y) {
  const int half = 1 << (WEIGHT_BITS - 1);
  const int first_x = view.columns[x], taps_x = view.columns[view.new_width + x];
  const int first_y = view.rows[y], taps_y = view.rows[view.new_height + y];
  const int* across = view.columns + 2 * view.new_width + x;
  const int* along = view.rows + 2 * view.new_height + y;
  Level sum = {half, half, half};
  for (int j = 0; j < taps_y; ++j) {
    Level line = {half, half, half};
#pragma unroll 4
    for (int i = 0; i < taps_x; ++i) {
      const Level pixel = Encoding::at(view.frame, first_x + i, first_y + j);
      const int weight = across[i * view.new_width];
      line.red += pixel.red * weight;
      line.green += pixel.green * weight;
      line.blue += pixel.blue * weight;
    }
    const int weight = along[j * view.new_height];
    sum.red += rounded(line.red) * weight;
    sum.green += rounded(line.green) * weight;
    sum.blue += rounded(line.blue) * weight;
  }
  return {rounded(sum.red), rounded(sum.green), rounded(sum.blue)};
}

__device__ __forceinline__ Level output_pixel(const View& view, int x, int y) {
  x -= view.left;
  y -= view.top;
  const bool inside = x >= 0 && y >= 0 && x < view.new_width && y < view.new_height;
  if (!view.frame.pixels || !inside) return {0, 0, 0};
  if (view.frame.family == INTERLEAVED) return filtered<Interleaved>(view, x, y);
  if (view.frame.family == YUV422) return filtered<Yuv422>(view, x, y);
  return filtered<Bayer>(view, x, y);
}

template <typename Word>
__device__ void write_pixel(const Views& views, const Target& to, const Word* table, Word* out) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  const int index = blockIdx.z;
  if (x >= to.width || y >= to.height) return;
  const Level level = output_pixel(views.view[index], x, y);
  long long at, plane;
  if (to.patch) {
    const int across = to.width / to.patch, down = to.height / to.patch;
    const long long patch = ((long long)index * down + y / to.patch) * across + x / to.patch;
    at = patch * to.row + (y % to.patch) * to.patch + x % to.patch;
    plane = to.patch * to.patch;
  } else {
    plane = (long long)to.height * to.width;
    at = 3 * index * plane + (long long)y * to.width + x;
  }
  out[at] = table[level.red];
  out[at + plane] = table[level.green];
  out[at + 2 * plane] = table[level.blue];
}

}  // namespace

// `table` and `out` are words as wide as the dtype: a level's bits are looked up, not computed.
extern "C" __global__ void write_images_16(const Views views, const Target to,
                                           const unsigned short* table, unsigned short* out) {
  write_pixel(views, to, table, out);
}

extern "C" __global__ void write_images_32(const Views views, const Target to,
                                           const unsigned int* table, unsigned int* out) {
  write_pixel(views, to, table, out);
}
