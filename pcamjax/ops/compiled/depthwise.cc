// 3x3 convolution of each channel by itself, kernels [3,3,1,c], and its gradients, in float32, of at
// least one vector of channels.
#include "maps.h"

namespace pcamjax {
namespace {

constexpr int64_t WINDOW = 1 << 14;  // floats, which stay in a core's cache

// What some rows of a grid read of an image, with zeros around the map: [height][width][N * LANES], in N vectors of
// channels. It is copied, for each value is read nine times and no edge is in the way then.
struct Window {
  int64_t first, rows;               // of the grid
  int64_t top, left, height, width;  // in the map

  // Where tap t reads for the first position of the first row.
  int64_t offset(const Grid& grid, int64_t t) const {
    return (grid.row_offsets[t] - top + first * grid.down) * width + grid.column_offsets[t] - left;
  }
};

// The windows that cover an image.
std::vector<Window> windows_of(const Grid& grid) {
  if (grid.taps.empty()) return {{0, grid.rows, 0, 0, 0, 0}};  // of a stride beyond the kernel's size: zeros alone
  const auto [top, bottom] = std::minmax_element(grid.row_offsets.begin(), grid.row_offsets.end());
  const auto [left, right] = std::minmax_element(grid.column_offsets.begin(), grid.column_offsets.end());
  const int64_t width = (grid.columns - 1) * grid.right + *right - *left + 1, kernel = *bottom - *top + 1;
  const int64_t together = std::max<int64_t>(1, (WINDOW / (width * 2 * LANES) - kernel) / grid.down + 1);
  std::vector<Window> windows;
  for (int64_t first = 0; first < grid.rows; first += together) {
    const int64_t rows = std::min(together, grid.rows - first);
    windows.push_back({first, rows, first * grid.down + *top, *left, (rows - 1) * grid.down + kernel, width});
  }
  return windows;
}

// Fills a window with the channels from c on; what lies beyond the map stays as it is.
template <int N>
void fill(const Map& in, int64_t image, const Window& window, int64_t c, float* to) {
  const int64_t from = std::max<int64_t>(window.left, 0), end = std::min(window.left + window.width, in.w);
  for (int64_t y = std::max<int64_t>(window.top, 0); y < std::min(window.top + window.height, in.h); ++y) {
    const float* position = in.data + ((image * in.h + y) * in.w + from) * in.c + c;
    float* place = to + ((y - window.top) * window.width + from - window.left) * N * LANES;
    for (int64_t x = from; x < end; ++x, position += in.c, place += N * LANES)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        store(place + n * LANES, load(position + n * LANES));
        __builtin_prefetch(position + (N + n) * LANES);  // the next channels
      }
  }
}

// Calls work<N>(c) for as many vectors of channels from c on as lie side by side, by two; the last may overlap the one
// before. `change` is called before N does.
template <typename Change, typename Work>
void each_pair(int64_t channels, const Change& change, const Work& work) {
  int64_t c = 0;
  if (channels >= 2 * LANES) change();
  for (; c + 2 * LANES <= channels; c += 2 * LANES) work.template operator()<2>(c);
  if (c == channels) return;
  change();
  if (c + LANES <= channels) work.template operator()<1>(c);
  if (channels % LANES) work.template operator()<1>(channels - LANES);
}

// finish(sum_t tap t * kernel[taps[t]]) of a window, in N vectors of channels from c on.
template <int TAPS, int N>
void convolve_window(const float* window, const Window& of, const Grid& grid, const float* kernel, const Map& out,
                     int64_t image, int64_t c, const Finish& finish) {
  const Finish end = finish.from(c);  // which no store can change
  Vector weights[TAPS + 1][N], shift[N];
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) shift[n] = load(end.shift + n * LANES);
#pragma GCC unroll 9
  for (int t = 0; t < TAPS; ++t)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) weights[t][n] = load(kernel + grid.taps[t] * out.c + c + n * LANES);
  const int64_t right = grid.right * N * LANES, step = grid.step_right * out.c;
  for (int64_t y = 0; y < of.rows; ++y) {
    const float* from[TAPS + 1];
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; ++t)
      from[t] = window + (y * grid.down * of.width + of.offset(grid, t)) * N * LANES;
    const int64_t row = image * out.h + grid.row_from + (of.first + y) * grid.step_down;
    float* to = out.data + (row * out.w + grid.column_from) * out.c + c;
    for (int64_t p = 0; p < grid.columns; ++p, to += step) {
      Vector sums[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) sums[n] = shift[n];
#pragma GCC unroll 9
      for (int t = 0; t < TAPS; ++t)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) sums[n] += load(from[t] + p * right + n * LANES) * weights[t][n];
      end.apply<1, N>(sums, N * LANES);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) store(to + n * LANES, sums[n]);
    }
  }
}

using ConvolveWindow = decltype(&convolve_window<9, 1>);
template <int N>
constexpr ConvolveWindow CONVOLVE_WINDOW[] = {
    convolve_window<0, N>, convolve_window<1, N>, convolve_window<2, N>, convolve_window<3, N>, convolve_window<4, N>,
    convolve_window<5, N>, convolve_window<6, N>, convolve_window<7, N>, convolve_window<8, N>, convolve_window<9, N>};

void depthwise(ffi::ThreadPool& pool, const Map& in, const float* kernel, const Map& out,
               const std::vector<Grid>& grids, const Epilogue& end = {}) {
  const std::vector<float> zeros(in.c);
  const Finish finish{end.shift ? end.shift : zeros.data(), nullptr, end.low, end.high, end.gain, end.offset};
  for (const Grid& grid : grids) {
    const std::vector<Window> windows = windows_of(grid);
    parallel_for(pool, in.b * std::ssize(windows), [&](int64_t i) {
      const int64_t image = i / std::ssize(windows);
      const Window& window = windows[i % std::ssize(windows)];
      const int64_t size = window.height * window.width * 2 * LANES;
      float* const values = scratch(size);
      each_pair(in.c, [&] { std::fill_n(values, size, 0.0f); }, [&]<int N>(int64_t c) {
        fill<N>(in, image, window, c, values);
        CONVOLVE_WINDOW<N>[grid.taps.size()](values, window, grid, kernel, out, image, c, finish);
      });
    });
  }
}

// Each image adds up its own sums; they are added in order.
void kernel_gradient(ffi::ThreadPool& pool, const Map& in, const Map& slope, float* out, const Grid& grid) {
  const int64_t size = 9 * in.c;
  const std::vector<Window> windows = windows_of(grid);
  const Buffer sums(in.b * size);
  parallel_for(pool, in.b, [&](int64_t image) {
    float* const values = scratch(windows[0].height * windows[0].width * 2 * LANES);  // the first is the largest
    each_pair(in.c, [&] {}, [&]<int N>(int64_t c) {
      Vector totals[9][N] = {};
      for (const Window& window : windows) {
        std::fill_n(values, window.height * window.width * N * LANES, 0.0f);
        fill<N>(in, image, window, c, values);
        for (int64_t y = 0; y < window.rows; ++y) {
          const float* from[9];
#pragma GCC unroll 9
          for (int t = 0; t < 9; ++t)
            from[t] = values + (y * grid.down * window.width + window.offset(grid, t)) * N * LANES;
          const float* by = slope.data + ((image * grid.rows + window.first + y) * grid.columns) * in.c + c;
          for (int64_t p = 0; p < grid.columns; ++p, by += in.c) {
            Vector v[N];
#pragma GCC unroll 2
            for (int n = 0; n < N; ++n) v[n] = load(by + n * LANES);
#pragma GCC unroll 9
            for (int t = 0; t < 9; ++t)
#pragma GCC unroll 2
              for (int n = 0; n < N; ++n) totals[t][n] += load(from[t] + p * grid.right * N * LANES + n * LANES) * v[n];
          }
        }
      }
#pragma GCC unroll 9
      for (int t = 0; t < 9; ++t)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) store(sums.get() + image * size + t * in.c + c + n * LANES, totals[t][n]);
    });
  });
  for (int64_t t = 0; t < 9; ++t)
    each_vector(in.c, [&](int64_t c, int64_t) {
      Vector total = {};
      for (int64_t image = 0; image < in.b; ++image) total += load(sums.get() + image * size + t * in.c + c);
      store(out + t * in.c + c, total);
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
