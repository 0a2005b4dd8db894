// 3x3 convolution of each channel by itself, kernels [3,3,1,c], and its gradients, in float32, of at
// least one vector of channels.
#include "maps.h"

namespace pcamjax {
namespace {

// Positions side by side in a row that read the same taps of the map: tap t of position p lies at sources[t] + p * right,
// and what it makes at out + p * step.
struct Span {
  const float* sources[9];
  int64_t taps[9], inside = 0, right, step, count;
  float* out;
};

// finish(sum_t tap t * kernel[taps[t]]), in N vectors of channels from c on.
template <int TAPS, int N>
void strip(const Span& span, const float* kernel, int64_t channels, int64_t c, const Finish& finish) {
  const Finish end = finish;  // which no store can change
  const int64_t right = span.right, step = span.step, count = span.count;
  float* const out = span.out + c;
  const float* from[TAPS + 1];
  Vector weights[TAPS + 1][N], shift[N];
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) shift[n] = load(finish.shift + c + n * LANES);
#pragma GCC unroll 9
  for (int t = 0; t < TAPS; ++t) {
    from[t] = span.sources[t] + c;
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) weights[t][n] = load(kernel + span.taps[t] * channels + c + n * LANES);
  }
  for (int64_t p = 0; p < count; ++p) {
    Vector sums[N];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) sums[n] = shift[n];
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; ++t)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) sums[n] += load(from[t] + p * right + n * LANES) * weights[t][n];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) store(out + p * step + n * LANES, end(sums[n], c + n * LANES));
  }
}

using Strip = decltype(&strip<9, 1>);
template <int N>
constexpr Strip STRIP[] = {strip<0, N>, strip<1, N>, strip<2, N>, strip<3, N>, strip<4, N>,
                           strip<5, N>, strip<6, N>, strip<7, N>, strip<8, N>, strip<9, N>};

void depthwise(ffi::ThreadPool& pool, const Map& in, const float* kernel, const Map& out,
               const std::vector<Grid>& grids, const Epilogue& end = {}) {
  const std::vector<float> zeros(in.c);
  const Finish finish{end.shift ? end.shift : zeros.data(), nullptr, end.low, end.high, end.gain, end.offset};
  parallel_for(pool, in.b * grids[0].rows, [&](int64_t i) {
    std::vector<Span> spans;
    for (const Grid& grid : grids) {
      const int64_t image = i / grids[0].rows, y = i % grids[0].rows;
      if (y >= grid.rows) continue;
      const int64_t row = image * out.h + grid.row_from + y * grid.step_down;
      const auto add = [&](int64_t x, int64_t count) {
        Span& span = spans.emplace_back();
        span.right = grid.right * in.c, span.step = grid.step_right * out.c, span.count = count;
        span.out = out.data + (row * out.w + grid.column_from + x * grid.step_right) * out.c;
        for (size_t t = 0; t < grid.taps.size(); ++t) {
          const int64_t y_in = y * grid.down + grid.row_offsets[t], x_in = x * grid.right + grid.column_offsets[t];
          if (y_in < 0 || y_in >= in.h || x_in < 0 || x_in >= in.w) continue;
          span.sources[span.inside] = in.data + ((image * in.h + y_in) * in.w + x_in) * in.c;
          span.taps[span.inside++] = grid.taps[t];
        }
      };
      int64_t left = 0, right = 0;  // how far taps lie to both sides
      for (int64_t offset : grid.column_offsets) left = std::max(left, -offset), right = std::max(right, offset);
      const int64_t first = std::min(ceil_div(left, grid.right), grid.columns),
                    last = std::clamp((in.w - 1 - right + grid.right) / grid.right, first, grid.columns);
      for (int64_t x = 0; x < first; ++x) add(x, 1);
      if (first < last) add(first, last - first);
      for (int64_t x = last; x < grid.columns; ++x) add(x, 1);
    }
    const auto by = [&]<int N>(int64_t c) {
      for (const Span& span : spans) STRIP<N>[span.inside](span, kernel, in.c, c, finish);
    };
    int64_t c = 0;
    for (; c + 2 * LANES <= in.c; c += 2 * LANES) by.template operator()<2>(c);
    if (c + LANES <= in.c) by.template operator()<1>(c);
    if (in.c % LANES) by.template operator()<1>(in.c - LANES);
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
