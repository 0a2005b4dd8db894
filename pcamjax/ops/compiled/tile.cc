// The two small matrix products, with their sums in registers.
#include "tile.h"

namespace pcamjax {
namespace {

template <int M, int N>
void multiply(int taps, int64_t channels, const float* const* rows, int64_t row_step, const float* weights,
              float* const* out, int64_t columns, const Finish& finish, const float* zeros,
              const float* const* ahead) {
  if (ahead)  // what is written, and read at the end, is fetched meanwhile
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        __builtin_prefetch(out[m] + n * LANES, 1);
        if (finish.added) __builtin_prefetch(finish.added[m] + n * LANES);
      }
  Vector sums[M * N], shift[N];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) shift[n] = finish.shift ? load(finish.shift + n * LANES) : Vector{};
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sums[m * N + n] = shift[n];
  for (int t = 0; t < taps; ++t, rows += row_step) {
    const float* a[M];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) a[m] = rows[m];
    bool beyond = true;  // the edges of the map, for all rows
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) beyond &= a[m] == zeros;
    if (beyond) {
      weights += channels * N * LANES;
      continue;
    }
    for (int64_t c = 0; c < channels;) {
      if (ahead)
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) __builtin_prefetch(ahead[m] + c);
      for (const int64_t line = std::min(c + LINE, channels); c < line; ++c, weights += N * LANES) {
        Vector b[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) b[n] = load(weights + n * LANES);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
          for (int n = 0; n < N; ++n) sums[m * N + n] += a[m][c] * b[n];
      }
    }
  }
  finish.apply<M, N>(sums, columns);
  if (columns == N * LANES) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) store(out[m] + n * LANES, sums[m * N + n]);
    return;
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    float row[N * LANES];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(row + n * LANES, sums[m * N + n]);
    std::copy_n(row, columns, out[m]);
  }
}

template <int M, int N>
void correlate(int64_t count, const float* const* a, int64_t from, const float* b, int64_t b_step, float* out,
               int64_t out_step) {
  Vector sums[M][N];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sums[m][n] = load(out + m * out_step + n * LANES);
  for (int64_t p = 0; p < count; ++p, b += b_step) {
    const float* row = a[p] + from;
    __builtin_prefetch(row + LINE);  // which the next calls read
    Vector v[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) v[n] = load(b + n * LANES);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sums[m][n] += row[m] * v[n];
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(out + m * out_step + n * LANES, sums[m][n]);
}

#define PCAMJAX_ROWS(f, N)                                                                                     \
  {nullptr, f<1, N>, f<2, N>, f<3, N>, f<4, N>, f<5, N>, f<6, N>, f<7, N>, f<8, N>, f<9, N>, f<10, N>, f<11, N>, \
   f<12, N>}
#define PCAMJAX_TABLE(f) {{}, PCAMJAX_ROWS(f, 1), PCAMJAX_ROWS(f, 2), PCAMJAX_ROWS(f, 3), PCAMJAX_ROWS(f, 4)}

}  // namespace

const Multiply MULTIPLY[5][LARGEST_M + 1] = PCAMJAX_TABLE(multiply);
const Correlate CORRELATE[5][LARGEST_M + 1] = PCAMJAX_TABLE(correlate);

}  // namespace pcamjax
