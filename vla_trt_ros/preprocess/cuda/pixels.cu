// Pixels of a camera image as they arrived, one at a time: what every kernel that reads a GpuFrame
// includes. No header and no half type: it compiles for every GPU by NVRTC, and as C++ for a processor in
// the tests.

struct Frame {
  const unsigned char* pixels;  // first byte of the first row; null: no frame
  long long step;               // bytes from a row to the next
  int height, width;
  int family, bytes;  // bytes of a pixel
  int where[3];  // interleaved: byte of R, G, B; YUV: byte of Y, U, V in a pair; Bayer: x, y of red
  int unused;
};

static_assert(sizeof(Frame) == 48, "frames.py has its twin");

namespace {

// The numbers are PixelFamily's in gpu_frame.py.
constexpr int INTERLEAVED = 0;
constexpr int YUV422 = 1;
constexpr int BAYER = 2;

struct Level {
  int red, green, blue;
};

__device__ __forceinline__ int clamp(int value, int low, int high) {
  return value < low ? low : (value > high ? high : value);
}

struct Interleaved {
  static __device__ __forceinline__ Level at(const Frame& frame, int x, int y) {
    const unsigned char* pixel = frame.pixels + y * frame.step + (long long)x * frame.bytes;
    return {pixel[frame.where[0]], pixel[frame.where[1]], pixel[frame.where[2]]};
  }
};

// BT.601, studio swing, in the 20-bit fixed point of OpenCV.
struct Yuv422 {
  static __device__ __forceinline__ Level at(const Frame& frame, int x, int y) {
    const unsigned char* pair = frame.pixels + y * frame.step + (long long)(x >> 1) * 4;
    const int luma = pair[frame.where[0] + (x & 1) * 2] - 16;
    const int u = pair[frame.where[1]] - 128, v = pair[frame.where[2]] - 128;
    const int base = (luma < 0 ? 0 : luma) * 1220542 + (1 << 19);
    return {clamp((base + 1673527 * v) >> 20, 0, 255),
            clamp((base - 852492 * v - 409993 * u) >> 20, 0, 255),
            clamp((base + 2116026 * u) >> 20, 0, 255)};
  }
};

// Bilinear; the outermost rows and columns repeat their neighbours, as OpenCV has it.
struct Bayer {
  static __device__ __forceinline__ Level at(const Frame& frame, int x, int y) {
    if (frame.height <= 2 || frame.width <= 2) return {0, 0, 0};
    x = clamp(x, 1, frame.width - 2);
    y = clamp(y, 1, frame.height - 2);
    const unsigned char* here = frame.pixels + y * frame.step + x;
    const unsigned char* above = here - frame.step;
    const unsigned char* below = here + frame.step;
    const bool red_column = (x & 1) == frame.where[0], red_row = (y & 1) == frame.where[1];
    const int sides = here[-1] + here[1], ends = above[0] + below[0];
    if (red_column != red_row) {  // a green one: red beside it or above it
      const int across = (sides + 1) >> 1, along = (ends + 1) >> 1;
      return {red_row ? across : along, here[0], red_row ? along : across};
    }
    const int green = (sides + ends + 2) >> 2;
    const int corners = (above[-1] + above[1] + below[-1] + below[1] + 2) >> 2;
    return {red_row ? here[0] : corners, green, red_row ? corners : here[0]};
  }
};

}  // namespace
