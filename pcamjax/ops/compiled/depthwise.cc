// 3x3 convolution of each channel by itself, kernels [3,3,1,c], and its gradients, in float32, channels in whole vectors.
#include "maps.h"

namespace pcamjax {
namespace {

// One row of positions of a grid for all channels: to[p] = sum_t sources[t][p] * kernel[taps[t]].
template <int TAPS>
void row(const float* const* sources, float* const* targets, int64_t count, const float* kernel, const int64_t* taps,
         int64_t channels) {
  for (int64_t c = 0; c < channels; c += LANES) {
    Vector weights[TAPS];
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; ++t) weights[t] = load(kernel + taps[t] * channels + c);
    for (int64_t p = 0; p < count; ++p) {
      Vector sum = load(sources[p] + c) * weights[0];
#pragma GCC unroll 9
      for (int t = 1; t < TAPS; ++t) sum += load(sources[t * count + p] + c) * weights[t];
      store(targets[p] + c, sum);
    }
  }
}

void depthwise(ffi::ThreadPool& pool, const Map& in, const float* kernel, const Map& out,
               const std::vector<Grid>& grids) {
  const std::vector<float> zeros(in.c);
  parallel_for(pool, in.b * grids[0].rows, [&](int64_t i) {
    for (const Grid& grid : grids) {
      const int64_t image = i / grids[0].rows, y = i % grids[0].rows, count = grid.columns;
      if (y >= grid.rows) continue;
      std::vector<const float*> sources(9 * count);
      std::vector<float*> targets(count);
      const int64_t first = (image * grid.rows + y) * count;
      read_positions(in, grid, first, count, zeros.data(), sources.data());
      write_positions(out, grid, first, count, targets.data());
      const auto work = grid.taps.size() == 9 ? row<9> : grid.taps.size() == 4 ? row<4> : grid.taps.size() == 2 ? row<2> : row<1>;
      work(sources.data(), targets.data(), count, kernel, grid.taps.data(), in.c);
    }
  });
}

// Each image adds up its own sums; they are added in order.
void kernel_gradient(ffi::ThreadPool& pool, const Map& in, const Map& slope, float* out, const Grid& grid) {
  const std::vector<float> zeros(in.c);
  const int64_t count = grid.columns, size = 9 * in.c;
  const Buffer sums(in.b * size);
  parallel_for(pool, in.b, [&](int64_t image) {
    float* sum = sums.get() + image * size;
    std::fill_n(sum, size, 0.0f);
    std::vector<const float*> sources(9 * count);
    for (int64_t y = 0; y < grid.rows; ++y) {
      const int64_t first = (image * grid.rows + y) * count;
      read_positions(in, grid, first, count, zeros.data(), sources.data());
      for (int64_t c = 0; c < in.c; c += LANES) {
        Vector totals[9];
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) totals[t] = load(sum + t * in.c + c);
        for (int64_t p = 0; p < count; ++p) {
          const Vector v = load(slope.data + (first + p) * in.c + c);
#pragma GCC unroll 9
          for (int t = 0; t < 9; ++t) totals[t] += load(sources[t * count + p] + c) * v;
        }
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) store(sum + t * in.c + c, totals[t]);
      }
    }
  });
  for (int64_t i = 0; i < size; ++i) {
    float total = 0;
    for (int64_t image = 0; image < in.b; ++image) total += sums[image * size + i];
    out[i] = total;
  }
}

ffi::Error forward(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> kernel,
                   ffi::ResultBuffer<ffi::F32> y, int64_t down, int64_t right, int64_t top, int64_t left) {
  const Map in = map_of(x), out = map_of(*y);
  depthwise(pool, in, kernel.typed_data(), out, forward_grids(out, 3, 3, down, right, top, left));
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
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_depthwise_by_input, pcamjax::by_input, pcamjax::binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_depthwise_by_kernel, pcamjax::by_kernel, pcamjax::binding());
