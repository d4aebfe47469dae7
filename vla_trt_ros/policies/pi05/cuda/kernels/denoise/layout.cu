// Sizes, arguments, and where everything lies.

constexpr int WIDTH = 1024, MLP = 4096, DIM = 256, HALF = 128, ACTIONS = 32;
constexpr int HEADS = 8, PARTS = 16, PART_KEYS = 64, GROUPS = 16, SLICES = 8;
constexpr int QKV_BLOCKS = 80, QKV = 2560;
constexpr int SCALES = QKV + WIDTH + 2 * MLP + WIDTH;
constexpr float EPS = 1e-6f;

// Bytes of a block's slices, and where they start in a layer's packed weights.
constexpr int QKV_BYTES = 32 * 1024, OUT_BYTES = 16 * 1024, UP_BYTES = 64 * 1024,
              DOWN_BYTES = 32 * 1024;
constexpr u64 OUT_AT = (u64)QKV_BLOCKS * QKV_BYTES;
constexpr u64 UP_AT = OUT_AT + 128ull * OUT_BYTES;
constexpr u64 DOWN_AT = UP_AT + 128ull * UP_BYTES;
constexpr u64 LAYER = DOWN_AT + 128ull * DOWN_BYTES;

// Shared memory. Keys and values lie where, behind attention, half of gate and up, and down come.
constexpr int A = 0, W_QKV = 64 * 1024, W_OUT = W_QKV + QKV_BYTES, W_UP = W_OUT + OUT_BYTES,
              W_DOWN = W_UP + UP_BYTES, EXCHANGE = W_DOWN + DOWN_BYTES,
              MISC = EXCHANGE + 16 * 1024;
constexpr int KEYS = W_UP, VALUES = W_DOWN, HALF_UP = UP_BYTES / 2;
constexpr int KEYS_BYTES = PART_KEYS * DIM * 2, PIECE = 4096;

// Workspace in device memory. What has two copies is used in turn: the stream and its squares in
// front of a layer and in its middle, sums of out and of down, latents step by step, the others
// layer by layer.
constexpr int XS = 0, XS_BYTES = 8 * CHUNK, LAST = XS + 2 * XS_BYTES,
              LAST_SQUARES = LAST + 64 * WIDTH * 2, SQUARES_BYTES = 64 * GROUPS * 4,
              SQUARES = LAST_SQUARES + SQUARES_BYTES, ROTATED = SQUARES + 2 * SQUARES_BYTES,
              ROTATED_BYTES = HEADS * 4 * CHUNK,
              SUFFIX = ROTATED + 2 * ROTATED_BYTES, SUFFIX_BYTES = 2 * 64 * DIM * 2,
              ATTENDED = SUFFIX + 2 * SUFFIX_BYTES, ATTENDED_BYTES = 16 * CHUNK,
              HIDDEN = ATTENDED + 2 * ATTENDED_BYTES, HIDDEN_BYTES = 32 * CHUNK,
              LOG_WEIGHTS = HIDDEN + 2 * HIDDEN_BYTES,
              PARTIAL = LOG_WEIGHTS + PARTS * HEADS * 64 * 4,
              SUMS = PARTIAL + PARTS * HEADS * 64 * DIM * 2,
              SUMS_BYTES = 16 * SLICES * SLICES * 8 * 64 * 4,
              NEXT = SUMS + 2 * SUMS_BYTES, NEXT_BYTES = 64 * ACTIONS * 4;  // latents
static_assert(NEXT + 2 * NEXT_BYTES <= WORKSPACE, "persistent.py allocates too little");

// Counters, 128 bytes apart: blocks that are past a layer's begin, past its middle. Hints, no
// promises: blocks that have stored their part of the stream in front of a layer, and in its middle;
// their part of the heads.
enum Counter { STREAM, MIDDLE, STREAM_STORED, HEADS_STORED = STREAM_STORED + 2 };

struct Arguments {
    const u8* weights;
    const float *scales, *inverse, *factor, *gate, *qkv_shift, *up_shift, *out_shift;
    const float *in_weight, *in_bias;
    const u16* out_weight;
    const float *cosines, *sines;
    u16 *keys, *values;
    const int* valid;
    float* latents;
    u8* tiles;  // of the prefix's keys and values: a layer, a part, keys and values
    u8* workspace;
    u32* counters;
    int layers, steps, horizon, rows, positions, pace;
};
