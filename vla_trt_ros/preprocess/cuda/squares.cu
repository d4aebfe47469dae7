// A part of a camera image as it arrived -> the square input of a detector or classifier.
//
// One thread makes one pixel of the square, from pixels that it decodes on the way: bilinear in the
// 8-bit fixed point of OpenCV (weights of 11 bits), or OpenCV's average over an area, in float. Its
// three levels are looked up in a table, a row a colour, which holds scale, mean and dtype.

#include "pixels.cu"

struct Cut {
  Frame frame;
  double scale_x, scale_y;               // pixels of the part that one of the square stands for
  int x, y, width, height;               // the part of the image
  int new_width, new_height, left, top;  // its place in the square; around it grey
  int side;
  int area;  // 1: average, for a part that shrinks both ways; 0: bilinear
};

static_assert(sizeof(Cut) == 104, "squares.py has its twin");

namespace {

constexpr int GREY = 114;

struct Tap {
  int at, next;             // two pixels of a row or column
  int weight, weight_next;  // 2048 together
};

// The intrinsics keep the compiler from fusing the product with the difference, which rounds elsewhere.
__device__ __forceinline__ Tap tap(int place, double scale, int size, bool cut_off) {
  float rest = (float)__dadd_rn(__dmul_rn(place + 0.5, scale), -0.5);
  const int at = (int)floor((double)rest);
  rest -= at;
  // Beyond the rim OpenCV drops the fraction along a row, and repeats the pixel along a column.
  if (cut_off && (at < 0 || at >= size - 1)) rest = 0;
  const int weight = __float2int_rn((1.f - rest) * 2048.f), next = __float2int_rn(rest * 2048.f);
  return {clamp(at, 0, size - 1), clamp(at + 1, 0, size - 1), weight, next};
}

__device__ __forceinline__ int mixed(int above, int below, const Tap& row) {
  const int sum = ((row.weight * (above >> 4)) >> 16) + ((row.weight_next * (below >> 4)) >> 16);
  return clamp((sum + 2) >> 2, 0, 255);
}

template <typename Encoding>
__device__ Level bilinear(const Cut& cut, int x, int y) {
  const Tap column = tap(x, cut.scale_x, cut.width, true);
  const Tap row = tap(y, cut.scale_y, cut.height, false);
  Level line[2];
  for (int i = 0; i < 2; ++i) {
    const int at = cut.y + (i ? row.next : row.at);
    const Level left = Encoding::at(cut.frame, cut.x + column.at, at);
    const Level right = Encoding::at(cut.frame, cut.x + column.next, at);
    line[i] = {left.red * column.weight + right.red * column.weight_next,
               left.green * column.weight + right.green * column.weight_next,
               left.blue * column.weight + right.blue * column.weight_next};
  }
  return {mixed(line[0].red, line[1].red, row), mixed(line[0].green, line[1].green, row),
          mixed(line[0].blue, line[1].blue, row)};
}

// The pixels that a pixel of the square covers: the first and last one perhaps in part.
struct Span {
  int first, count;
  float head, body, tail;  // share of the first one, of each inner one, of the last one

  __device__ __forceinline__ float share(int i) const {
    return i == 0 ? head : (i == count - 1 ? tail : body);
  }
};

__device__ __forceinline__ Span span(int place, double scale, int size) {
  const double begin = place * scale, end = begin + scale;
  const double rest = size - begin, whole = scale < rest ? scale : rest;
  int low = (int)ceil(begin), high = (int)floor(end);
  high = high < size - 1 ? high : size - 1;
  low = low < high ? low : high;
  const bool in_part = low - begin > 1e-3, over = end - high > 1e-3;
  const double left = end - high < 1.0 ? end - high : 1.0;
  Span made;
  made.first = in_part ? low - 1 : low;
  made.count = high - made.first + (over ? 1 : 0);
  made.body = (float)(1.0 / whole);
  made.tail = over ? (float)((left < whole ? left : whole) / whole) : made.body;
  // Of a single pixel the first is the last one.
  made.head = in_part ? (float)((low - begin) / whole) : (made.count == 1 ? made.tail : made.body);
  return made;
}

template <typename Encoding>
__device__ Level average(const Cut& cut, int x, int y) {
  const Span columns = span(x, cut.scale_x, cut.width), rows = span(y, cut.scale_y, cut.height);
  float red = 0, green = 0, blue = 0;
  for (int j = 0; j < rows.count; ++j) {
    float line_red = 0, line_green = 0, line_blue = 0;
    for (int i = 0; i < columns.count; ++i) {
      const Level pixel =
          Encoding::at(cut.frame, cut.x + columns.first + i, cut.y + rows.first + j);
      const float share = columns.share(i);
      line_red += pixel.red * share;
      line_green += pixel.green * share;
      line_blue += pixel.blue * share;
    }
    const float share = rows.share(j);
    red += line_red * share;
    green += line_green * share;
    blue += line_blue * share;
  }
  return {clamp(__float2int_rn(red), 0, 255), clamp(__float2int_rn(green), 0, 255),
          clamp(__float2int_rn(blue), 0, 255)};
}

// Where a pixel of the square covers whole pixels, OpenCV adds them up as whole numbers.
template <typename Encoding>
__device__ Level block_average(const Cut& cut, int x, int y) {
  const int across = (int)cut.scale_x, down = (int)cut.scale_y, count = across * down;
  Level sum = {0, 0, 0};
  for (int j = 0; j < down; ++j) {
    for (int i = 0; i < across; ++i) {
      const Level pixel = Encoding::at(cut.frame, cut.x + x * across + i, cut.y + y * down + j);
      sum.red += pixel.red;
      sum.green += pixel.green;
      sum.blue += pixel.blue;
    }
  }
  if (across == 2 && down == 2) {
    return {(sum.red + 2) >> 2, (sum.green + 2) >> 2, (sum.blue + 2) >> 2};
  }
  const float share = 1.f / count;
  return {clamp(__float2int_rn(sum.red * share), 0, 255),
          clamp(__float2int_rn(sum.green * share), 0, 255),
          clamp(__float2int_rn(sum.blue * share), 0, 255)};
}

template <typename Encoding>
__device__ __forceinline__ Level filtered(const Cut& cut, int x, int y) {
  if (!cut.area) return bilinear<Encoding>(cut, x, y);
  const bool whole = cut.scale_x == (int)cut.scale_x && cut.scale_y == (int)cut.scale_y;
  return whole ? block_average<Encoding>(cut, x, y) : average<Encoding>(cut, x, y);
}

__device__ __forceinline__ Level square_pixel(const Cut& cut, int x, int y) {
  x -= cut.left;
  y -= cut.top;
  if (x < 0 || y < 0 || x >= cut.new_width || y >= cut.new_height) return {GREY, GREY, GREY};
  if (cut.frame.family == INTERLEAVED) return filtered<Interleaved>(cut, x, y);
  if (cut.frame.family == YUV422) return filtered<Yuv422>(cut, x, y);
  return filtered<Bayer>(cut, x, y);
}

template <typename Word>
__device__ void write_square(const Cut& cut, const Word* table, Word* out) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= cut.side || y >= cut.side) return;
  const Level level = square_pixel(cut, x, y);
  const int plane = cut.side * cut.side, at = y * cut.side + x;
  out[at] = table[level.red];
  out[at + plane] = table[256 + level.green];
  out[at + 2 * plane] = table[512 + level.blue];
}

}  // namespace

// `table` [3][256] and `out` [3][side][side] are words as wide as the dtype.
extern "C" __global__ void write_square_16(const Cut cut, const unsigned short* table,
                                           unsigned short* out) {
  write_square(cut, table, out);
}

extern "C" __global__ void write_square_32(const Cut cut, const unsigned int* table,
                                           unsigned int* out) {
  write_square(cut, table, out);
}
