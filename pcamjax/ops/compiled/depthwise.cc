// 3x3 convolution of each channel by itself, kernels [3,3,1,c], and its gradients, in float32, of at
// least one vector of channels.
#include "maps.h"

namespace pcamjax {
namespace {

// The positions of one row of a grid: where each reads its taps, and writes. At the first and the last of them taps may lie
// beyond the map's edge, where zeros are; from the others to their neighbours it is `right` and `step` floats.
struct Place {
  const float* sources[9];
  float* out;
};

struct Row {
  int64_t taps[9], count = 0;  // those that lie in the map's rows
  std::vector<Place> edges;
  Place inside;
  int64_t positions, right, step;
};

// finish(sum_t tap t * kernel[taps[t]]), in N vectors of channels from c on.
template <int TAPS, int N>
void strip(const Row& row, const float* kernel, int64_t channels, int64_t c, const Finish& finish) {
  const Finish end = finish;  // which no store can change
  const int64_t right = row.right, step = row.step, positions = row.positions;
  Vector weights[TAPS + 1][N], shift[N];
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) shift[n] = load(finish.shift + c + n * LANES);
#pragma GCC unroll 9
  for (int t = 0; t < TAPS; ++t)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) weights[t][n] = load(kernel + row.taps[t] * channels + c + n * LANES);
  const auto at = [&](const float* const* sources, int64_t beyond, float* out) {
    Vector sums[N];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) sums[n] = shift[n];
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; ++t)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) sums[n] += load(sources[t] + beyond + n * LANES) * weights[t][n];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) store(out + n * LANES, end(sums[n], c + n * LANES));
  };
  for (const Place& edge : row.edges) at(edge.sources, c, edge.out + c);
  const float* from[TAPS + 1];
#pragma GCC unroll 9
  for (int t = 0; t < TAPS; ++t) from[t] = row.inside.sources[t] + c;
  float* const out = row.inside.out + c;
  for (int64_t p = 0; p < positions; ++p) at(from, p * right, out + p * step);
}

using Strip = decltype(&strip<9, 1>);
template <int N>
constexpr Strip STRIP[] = {strip<0, N>, strip<1, N>, strip<2, N>, strip<3, N>, strip<4, N>,
                           strip<5, N>, strip<6, N>, strip<7, N>, strip<8, N>, strip<9, N>};

Row row_of(const Map& in, const Map& out, const Grid& grid, int64_t image, int64_t y, const float* zeros) {
  Row row;
  row.right = grid.right * in.c, row.step = grid.step_right * out.c;
  int64_t first = 0, last = grid.columns;  // the columns all of whose taps lie in the map
  std::vector<int64_t> rows, columns;
  for (size_t t = 0; t < grid.taps.size(); ++t) {
    const int64_t y_in = y * grid.down + grid.row_offsets[t], offset = grid.column_offsets[t];
    if (y_in < 0 || y_in >= in.h) continue;
    row.taps[row.count++] = grid.taps[t];
    rows.push_back((image * in.h + y_in) * in.w);
    columns.push_back(offset);
    while (first < grid.columns && first * grid.right + offset < 0) ++first;
    while (last > 0 && (last - 1) * grid.right + offset >= in.w) --last;
  }
  last = std::max(first, last);
  const auto place = [&](int64_t x) {
    Place at;
    for (int64_t t = 0; t < row.count; ++t) {
      const int64_t column = x * grid.right + columns[t];
      at.sources[t] = 0 <= column && column < in.w ? in.data + (rows[t] + column) * in.c : zeros;
    }
    const int64_t y_out = image * out.h + grid.row_from + y * grid.step_down;
    at.out = out.data + (y_out * out.w + grid.column_from + x * grid.step_right) * out.c;
    return at;
  };
  for (int64_t x = 0; x < first; ++x) row.edges.push_back(place(x));
  for (int64_t x = last; x < grid.columns; ++x) row.edges.push_back(place(x));
  row.inside = place(first), row.positions = last - first;
  return row;
}

void depthwise(ffi::ThreadPool& pool, const Map& in, const float* kernel, const Map& out,
               const std::vector<Grid>& grids, const Epilogue& end = {}) {
  const std::vector<float> zeros(in.c);
  const Finish finish{end.shift ? end.shift : zeros.data(), nullptr, end.low, end.high, end.gain, end.offset};
  parallel_for(pool, in.b * grids[0].rows, [&](int64_t i) {
    for (const Grid& grid : grids) {
      const int64_t image = i / grids[0].rows, y = i % grids[0].rows;
      if (y >= grid.rows) continue;
      const Row row = row_of(in, out, grid, image, y, zeros.data());
      const auto by = [&]<int N>(int64_t c) { STRIP<N>[row.count](row, kernel, in.c, c, finish); };
      int64_t c = 0;
      for (; c + 2 * LANES <= in.c; c += 2 * LANES) by.template operator()<2>(c);
      if (c + LANES <= in.c) by.template operator()<1>(c);
      if (in.c % LANES) by.template operator()<1>(in.c - LANES);
    }
  });
}

// Each image adds up its own sums, a vector after the other; they are added in order.
void kernel_gradient(ffi::ThreadPool& pool, const Map& in, const Map& slope, float* out, const Grid& grid) {
  const std::vector<float> zeros(in.c);
  const int64_t count = grid.columns, vectors = ceil_div(in.c, LANES), size = 9 * vectors * LANES;
  const Buffer sums(in.b * size);
  parallel_for(pool, in.b, [&](int64_t image) {
    float* sum = sums.get() + image * size;
    std::fill_n(sum, size, 0.0f);
    std::vector<const float*> sources(9 * count);
    for (int64_t y = 0; y < grid.rows; ++y) {
      const int64_t first = (image * grid.rows + y) * count;
      read_positions(in, grid, first, count, zeros.data(), sources.data());
      each_vector(in.c, [&](int64_t c, int64_t number) {
        Vector totals[9];
        float* place = sum + number * 9 * LANES;
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) totals[t] = load(place + t * LANES);
        for (int64_t p = 0; p < count; ++p) {
          const Vector v = load(slope.data + (first + p) * in.c + c);
#pragma GCC unroll 9
          for (int t = 0; t < 9; ++t) totals[t] += load(sources[t * count + p] + c) * v;
        }
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) store(place + t * LANES, totals[t]);
      });
    }
  });
  each_vector(in.c, [&](int64_t c, int64_t number) {
    for (int t = 0; t < 9; ++t) {
      Vector total = {};
      for (int64_t image = 0; image < in.b; ++image) total += load(sums.get() + image * size + (number * 9 + t) * LANES);
      store(out + t * in.c + c, total);
    }
  });
}

ffi::Error forward(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> kernel,
                   ffi::ResultBuffer<ffi::F32> y, int64_t down, int64_t right, int64_t top, int64_t left) {
  const Map in = map_of(x), out = map_of(*y);
  depthwise(pool, in, kernel.typed_data(), out, forward_grids(out, 3, 3, down, right, top, left));
  return ffi::Error::Success();
}

ffi::Error finished(ffi::ThreadPool pool, Array x, Array kernel, Array scale, Array shift, Array limits, Array added,
                    Array gain, Array offset, ffi::ResultBuffer<ffi::F32> y, int64_t down, int64_t right,
                    int64_t top, int64_t left) {
  const Map in = map_of(x), out = map_of(*y);
  std::vector<float> scaled(9 * in.c);
  for (int64_t i = 0; i < 9 * in.c; ++i) scaled[i] = kernel.typed_data()[i] * scale.typed_data()[i % in.c];
  depthwise(pool, in, scaled.data(), out, forward_grids(out, 3, 3, down, right, top, left),
            epilogue_of(shift, limits, added, gain, offset));
  return ffi::Error::Success();
}

ffi::Error by_input(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> slope, ffi::Buffer<ffi::F32> kernel,
                    ffi::ResultBuffer<ffi::F32> x, int64_t down, int64_t right, int64_t top, int64_t left) {
  const Map in = map_of(slope), out = map_of(*x);
  depthwise(pool, in, kernel.typed_data(), out, backward_grids(out, 3, 3, down, right, top, left));
  return ffi::Error::Success();
}

ffi::Error by_kernel(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> slope,
                     ffi::ResultBuffer<ffi::F32> kernel, int64_t down, int64_t right, int64_t top, int64_t left) {
  const Map s = map_of(slope);
  kernel_gradient(pool, map_of(x), s, kernel->typed_data(), forward_grids(s, 3, 3, down, right, top, left)[0]);
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pcamjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_depthwise, pcamjax::forward, pcamjax::binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_depthwise_finished, pcamjax::finished, pcamjax::finished_binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_depthwise_by_input, pcamjax::by_input, pcamjax::binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_depthwise_by_kernel, pcamjax::by_kernel, pcamjax::binding());
