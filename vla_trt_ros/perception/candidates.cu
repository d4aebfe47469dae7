// Output of head `dense`, float [4 + labels][places] -> a row of each place whose best label passes.

struct alignas(16) Row {
  float x, y, width, height;  // centre and size, pixels of the network's square
  float score;
  int label;
  int place;
  int unused;
};

static_assert(sizeof(Row) == 32, "candidates.py has its twin");

// One thread a place. Rows come in any order: `count` numbers them, and must be 0 before.
extern "C" __global__ void best_labels(const float* output, int labels, int places, float least,
                                       int* count, Row* rows) {
  const int place = blockIdx.x * blockDim.x + threadIdx.x;
  if (place >= places) return;
  const float* at = output + place;
  const float* scores = at + 4LL * places;
  float best = scores[0];
  int label = 0;
  bool number = best == best;
  for (int i = 1; i < labels; ++i) {
    const float score = scores[(long long)i * places];
    number = number && score == score;
    if (score > best) {
      best = score;
      label = i;
    }
  }
  if (!number || !(best > least)) return;
  Row row;
  row.x = at[0];
  row.y = at[places];
  row.width = at[2LL * places];
  row.height = at[3LL * places];
  row.score = best;
  row.label = label;
  row.place = place;
  row.unused = 0;
  rows[atomicAdd(count, 1)] = row;
}
