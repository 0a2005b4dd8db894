// 3x3 convolution with stride 1 by Winograd's minimal filtering F(4x4, 3x3), and its gradients, in float32.
//
// 36 products a tile of 4x4 outputs where the sum has 144 (Lavin & Gray, CVPR 2016). The points are 0, 3/4, -3/4, 3/2,
// -3/2 and infinity: their error is half of that of the usual 0, 1, -1, 2, -2. All channels come in whole vectors.
#include "maps.h"

namespace pcamjax {
namespace {

constexpr int OUT = 4, IN = 6, OUTS = OUT * OUT, INS = IN * IN;
constexpr float A = 0.75f, B = 1.5f, A2 = A * A, B2 = B * B, A3 = A2 * A, B3 = B2 * B;
constexpr float NA = 2 * A2 * (A2 - B2), NB = 2 * B2 * (B2 - A2), N0 = A2 * B2;

// In the names of Lavin & Gray, each along one axis: B^T d, A^T m, G g, and for the gradients A y and G^T u.
inline void transform_input(const Vector* d, int step, Vector* t) {
  const Vector even_a = d[4 * step] - B2 * d[2 * step], odd_a = A * (d[3 * step] - B2 * d[step]);
  const Vector even_b = d[4 * step] - A2 * d[2 * step], odd_b = B * (d[3 * step] - A2 * d[step]);
  t[0] = N0 * d[0] - (A2 + B2) * d[2 * step] + d[4 * step];
  t[1] = even_a + odd_a;
  t[2] = even_a - odd_a;
  t[3] = even_b + odd_b;
  t[4] = even_b - odd_b;
  t[5] = N0 * d[step] - (A2 + B2) * d[3 * step] + d[5 * step];
}

inline void transform_output(const Vector* m, int step, Vector* y) {
  const Vector even_a = m[step] + m[2 * step], odd_a = m[step] - m[2 * step];
  const Vector even_b = m[3 * step] + m[4 * step], odd_b = m[3 * step] - m[4 * step];
  y[0] = m[0] + even_a + even_b;
  y[1] = A * odd_a + B * odd_b;
  y[2] = A2 * even_a + B2 * even_b;
  y[3] = A3 * odd_a + B3 * odd_b + m[5 * step];
}

inline void transform_slope(const Vector* y, int step, Vector* w) {
  const Vector even_a = y[0] + A2 * y[2 * step], odd_a = A * y[step] + A3 * y[3 * step];
  const Vector even_b = y[0] + B2 * y[2 * step], odd_b = B * y[step] + B3 * y[3 * step];
  w[0] = y[0];
  w[1] = even_a + odd_a;
  w[2] = even_a - odd_a;
  w[3] = even_b + odd_b;
  w[4] = even_b - odd_b;
  w[5] = y[3 * step];
}

inline void transform_kernel(const Vector* g, int step, Vector* u) {
  const Vector even_a = (g[0] + A2 * g[2 * step]) * (1 / NA), odd_a = g[step] * (A / NA);
  const Vector even_b = (g[0] + B2 * g[2 * step]) * (1 / NB), odd_b = g[step] * (B / NB);
  u[0] = g[0] * (1 / N0);
  u[1] = even_a + odd_a;
  u[2] = even_a - odd_a;
  u[3] = even_b + odd_b;
  u[4] = even_b - odd_b;
  u[5] = g[2 * step];
}

inline void transform_kernel_back(const Vector* u, int step, Vector* g) {
  const Vector even_a = (u[step] + u[2 * step]) * (1 / NA), odd_a = (u[step] - u[2 * step]) * (A / NA);
  const Vector even_b = (u[3 * step] + u[4 * step]) * (1 / NB), odd_b = (u[3 * step] - u[4 * step]) * (B / NB);
  g[0] = u[0] * (1 / N0) + even_a + even_b;
  g[1] = odd_a + odd_b;
  g[2] = A2 * even_a + B2 * even_b + u[5 * step];
}

// Applies a transform along the columns, then along the rows: from[FROM][FROM] -> to[TO][TO].
template <int FROM, int TO, typename Transform>
inline void both_axes(const Vector* from, Vector* to, Transform transform) {
  Vector half[FROM * TO], column[TO];  // half[x][TO], of the column x
#pragma GCC unroll 6
  for (int x = 0; x < FROM; ++x) transform(from + x, FROM, half + x * TO);
#pragma GCC unroll 6
  for (int y = 0; y < TO; ++y) {
    transform(half + y, TO, column);
#pragma GCC unroll 6
    for (int x = 0; x < TO; ++x) to[y * TO + x] = column[x];
  }
}

// The tiles of a map: each reads size x size values from its place, 4 positions from its neighbour's.
Grid tiles_of(const Map& out, int size, int64_t top, int64_t left) {
  Grid grid{ceil_div(out.h, OUT), ceil_div(out.w, OUT), 0, 0, 1, 1, OUT, OUT, {}, {}, {}};
  for (int tap = 0; tap < size * size; ++tap) {
    grid.taps.push_back(tap);
    grid.row_offsets.push_back(tap / size - top);
    grid.column_offsets.push_back(tap % size - left);
  }
  return grid;
}

// Transforms `count` tiles from `first` on into to[place][tile][channels].
template <int FROM, typename Transform>
void gather(const Map& in, const Grid& grid, int64_t first, int64_t count, const float* zeros, float* to,
            int64_t place_step, Transform transform) {
  static thread_local std::vector<const float*> sources;  // kept: threads wait for each other to allocate
  sources.resize(FROM * FROM * count);
  read_positions(in, grid, first, count, zeros, sources.data());
  for (int64_t p = 0; p < count; ++p)
    for (int64_t c = 0; c < in.c; c += LANES) {
      Vector from[FROM * FROM], places[INS];
      if (p + 1 < count)
        for (int i = 0; i < FROM * FROM; ++i) __builtin_prefetch(sources[i * count + p + 1] + c);
      for (int i = 0; i < FROM * FROM; ++i) from[i] = load(sources[i * count + p] + c);
      both_axes<FROM, IN>(from, places, transform);
      for (int i = 0; i < INS; ++i) store(to + i * place_step + p * in.c + c, places[i]);
    }
}

// The kernel's transform as [column block][place][in][columns of the block]; `turned` by half a circle.
Buffer transform_kernels(ffi::ThreadPool& pool, const Kernel& kernel, const Columns& columns) {
  Buffer packed(INS * kernel.in * kernel.out);
  const int64_t strips = ceil_div(kernel.in, STRIP);
  parallel_for(pool, columns.list.size() * strips, [&](int64_t i) {
    const auto& block = columns.list[i / strips];
    const int64_t from = i % strips * STRIP, width = block.columns;
    float* to = packed.get() + block.from * INS * kernel.in;
    for (int64_t f = 0; f < width; f += LANES)
      for (int64_t c = from; c < std::min(from + STRIP, kernel.in); ++c) {
        Vector taps[9], places[INS];
        for (int tap = 0; tap < 9; ++tap)
          if (kernel.transposed)
            for (int lane = 0; lane < LANES; ++lane) taps[tap][lane] = kernel.at(8 - tap, c, block.from + f + lane);
          else
            taps[tap] = load(kernel.data + (tap * kernel.in + c) * kernel.out + block.from + f);
        if (kernel.scale)
          for (Vector& tap : taps) tap *= load(kernel.scale + block.from + f);
        both_axes<3, IN>(taps, places, transform_kernel);
        for (int place = 0; place < INS; ++place) store(to + (place * kernel.in + c) * width + f, places[place]);
      }
  });
  return packed;
}

void convolve(ffi::ThreadPool& pool, const Map& in, const Kernel& kernel, const Map& out, int64_t top, int64_t left,
              const Epilogue& end = {}) {
  const Columns columns(out.c);
  const Buffer kernels = transform_kernels(pool, kernel, columns);
  const std::vector<float> zeros(in.c);
  const Grid reads = tiles_of(out, IN, top, left), writes = tiles_of(out, OUT, 0, 0);
  const int64_t tiles = in.b * reads.rows * reads.columns;
  // Tiles worked on together: few, for their places to stay in a core's cache, but the kernels are read anew each time.
  const int64_t together = std::max<int64_t>(24, in.c * out.c / 1024 / LARGEST_M * LARGEST_M);
  const int64_t chunk = std::min(ceil_div(tiles, threads_of(pool)), together);
  parallel_for(pool, ceil_div(tiles, chunk), [&](int64_t i) {
    const int64_t first = i * chunk, count = std::min(chunk, tiles - first);
    float *places = scratch(INS * count * (in.c + MAX_N * LANES) + out.c), *products = places + INS * count * in.c,
          *sink = products + INS * count * MAX_N * LANES;  // for what lies beyond the map's edge
    gather<IN>(in, reads, first, count, zeros.data(), places, count * in.c, transform_input);
    static thread_local std::vector<const float*> rows, targets;
    static thread_local std::vector<float*> sums;
    rows.resize(INS * count), targets.resize(OUTS * count), sums.resize(INS * count);
    for (int64_t p = 0; p < INS * count; ++p) rows[p] = places + p * in.c;
    read_positions(out, writes, first, count, sink, targets.data());
    const Finish finish{nullptr, nullptr, end.low, end.high, end.gain, end.offset};
    for (const auto& block : columns.list) {
      const int64_t width = block.columns, most = MAX_M[block.vectors];
      for (int64_t p = 0; p < INS * count; ++p) sums[p] = products + p * width;
      const float* weights = kernels.get() + block.from * INS * in.c;
      for (int64_t place = 0; place < INS; ++place, weights += in.c * width)
        for (int64_t p = place * count; p < (place + 1) * count; p += most) {
          const int64_t m = std::min<int64_t>(most, (place + 1) * count - p);
          MULTIPLY[block.vectors][m](1, in.c, rows.data() + p, 0, weights, sums.data() + p, width, {}, nullptr,
                                       nullptr);
        }
      for (int64_t p = 0; p < count; ++p)
        for (int64_t f = 0; f < width; f += LANES) {
          Vector from[INS], to[OUTS];
          for (int place = 0; place < INS; ++place) from[place] = load(sums[place * count + p] + f);
          both_axes<IN, OUT>(from, to, transform_output);
          if (end.shift)
            for (Vector& sum : to) sum += load(end.shift + block.from + f);
          if (end.added)
            for (int j = 0; j < OUTS; ++j)
              if (targets[j * count + p] != sink)
                to[j] += load(end.added + (targets[j * count + p] - out.data) + block.from + f);
          finish.from(block.from + f).apply<OUTS, 1>(to, LANES);
          for (int j = 0; j < OUTS; ++j)
            if (targets[j * count + p] != sink)
              store(const_cast<float*>(targets[j * count + p]) + block.from + f, to[j]);
        }
    }
  });
}

void kernel_gradient(ffi::ThreadPool& pool, const Map& in, const Map& slope, float* out, int64_t top, int64_t left) {
  const std::vector<float> zeros(std::max(in.c, slope.c));
  const Columns columns(slope.c);
  const Grid reads = tiles_of(slope, IN, top, left), slopes = tiles_of(slope, OUT, 0, 0);
  const int64_t tiles = in.b * reads.rows * reads.columns, size = in.c * slope.c;
  const int64_t chunk = std::min(tiles, std::max<int64_t>(96, (int64_t{1} << 22) / (INS * (in.c + slope.c))));
  const Buffer inputs(INS * chunk * in.c), gradients(INS * chunk * slope.c),
               sums(INS * size);
  const int64_t piece = 24, group = 48;  // tiles transformed and channels summed by one thread at a time
  const int64_t groups = ceil_div(in.c, group);
  for (int64_t first = 0; first < tiles; first += chunk) {
    const int64_t count = std::min(chunk, tiles - first);
    parallel_for(pool, ceil_div(count, piece), [&](int64_t i) {
      const int64_t from = i * piece, n = std::min(piece, count - from);
      gather<IN>(in, reads, first + from, n, zeros.data(), inputs.get() + from * in.c, count * in.c, transform_input);
      gather<OUT>(slope, slopes, first + from, n, zeros.data(), gradients.get() + from * slope.c, count * slope.c,
                  transform_slope);
    });
    parallel_for(pool, INS * groups, [&](int64_t i) {
      const int64_t place = i / groups, from = i % groups * group, end = std::min(from + group, in.c);
      float* sum = sums.get() + place * size;
      if (!first) std::fill(sum + from * slope.c, sum + end * slope.c, 0.0f);
      static thread_local std::vector<const float*> rows;
      rows.resize(count);
      for (int64_t p = 0; p < count; ++p) rows[p] = inputs.get() + (place * count + p) * in.c;
      for (const auto& block : columns.list)
        for (int64_t c = from; c < end; c += MAX_M[block.vectors])
          CORRELATE[block.vectors][std::min<int64_t>(MAX_M[block.vectors], end - c)](
              count, rows.data(), c, gradients.get() + place * count * slope.c + block.from, slope.c,
              sum + c * slope.c + block.from, slope.c);
    });
  }
  parallel_for(pool, in.c, [&](int64_t c) {
    for (int64_t f = 0; f < slope.c; f += LANES) {
      Vector places[INS], taps[9];
      for (int place = 0; place < INS; ++place) places[place] = load(sums.get() + place * size + c * slope.c + f);
      both_axes<IN, 3>(places, taps, transform_kernel_back);
      for (int tap = 0; tap < 9; ++tap) store(out + tap * size + c * slope.c + f, taps[tap]);
    }
  });
}

ffi::Error forward(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> kernel,
                   ffi::ResultBuffer<ffi::F32> y, int64_t, int64_t, int64_t top, int64_t left) {
  const Map in = map_of(x), out = map_of(*y);
  convolve(pool, in, {kernel.typed_data(), 3, 3, in.c, out.c, false}, out, top, left);
  return ffi::Error::Success();
}

ffi::Error finished(ffi::ThreadPool pool, Array x, Array kernel, Array scale, Array shift, Array limits, Array added,
                    Array gain, Array offset, ffi::ResultBuffer<ffi::F32> y, int64_t, int64_t,
                    int64_t top, int64_t left) {
  const Map in = map_of(x), out = map_of(*y);
  convolve(pool, in, {kernel.typed_data(), 3, 3, in.c, out.c, false, scale.typed_data()}, out, top, left,
           epilogue_of(shift, limits, added, gain, offset));
  return ffi::Error::Success();
}

ffi::Error by_input(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> slope, ffi::Buffer<ffi::F32> kernel,
                    ffi::ResultBuffer<ffi::F32> x, int64_t, int64_t, int64_t top, int64_t left) {
  const Map in = map_of(slope), out = map_of(*x);
  convolve(pool, in, {kernel.typed_data(), 3, 3, in.c, out.c, true}, out, 2 - top, 2 - left);
  return ffi::Error::Success();
}

ffi::Error by_kernel(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> slope,
                     ffi::ResultBuffer<ffi::F32> kernel, int64_t, int64_t, int64_t top, int64_t left) {
  kernel_gradient(pool, map_of(x), map_of(slope), kernel->typed_data(), top, left);
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pcamjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_winograd, pcamjax::forward, pcamjax::binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_winograd_finished, pcamjax::finished, pcamjax::finished_binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_winograd_by_input, pcamjax::by_input, pcamjax::binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_winograd_by_kernel, pcamjax::by_kernel, pcamjax::binding());
