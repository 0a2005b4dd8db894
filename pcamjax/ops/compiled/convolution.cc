// 2-D convolution of maps [b,h,w,c] by kernels [kh,kw,c,f], its gradients, all in float32.
#include <span>

#include "maps.h"

namespace pcamjax {
namespace {

constexpr int64_t MOST_POSITIONS = 240;  // worked on together
// A map so small, and a kernel whose blocks of columns are so small, that the map is rather read for each block.
constexpr int64_t FEW_POSITIONS = 19 * MAX_N * LANES, MOST_WEIGHTS = int64_t{1} << 19;

// Positions worked on together: few enough for their patches to stay in a core's cache.
int64_t chunk_of(int64_t positions, int64_t channels) {
  const int64_t fitting = std::max<int64_t>(24, (int64_t{1} << 16) / std::max<int64_t>(channels, 1));
  return std::min<int64_t>(positions, std::min<int64_t>(fitting / 24 * 24, MOST_POSITIONS));
}

// How many taps are read at once: of few channels all those of a kernel's row, which lie side by side in the map.
int64_t run_of(const Map& in, const Grid& grid) {
  int64_t run = 1;
  if (in.c < 8)
    while (run < std::ssize(grid.taps) && grid.row_offsets[run] == grid.row_offsets[0] &&
           grid.column_offsets[run] == grid.column_offsets[0] + run)
      ++run;
  return run;
}

// As `read_positions`, for each run of taps: sources[run's number * count + i]. Runs that an edge of the map cuts are
// copied.
void read_runs(const Map& in, const Grid& grid, int64_t run, int64_t first, int64_t count, const float* zeros,
               const float** sources, std::vector<float>& copies) {
  if (run == 1) return read_positions(in, grid, first, count, zeros, sources);
  Grid starts = grid;
  starts.taps.clear(), starts.row_offsets.clear(), starts.column_offsets.clear();
  for (size_t t = 0; t < grid.taps.size(); t += run) {
    starts.taps.push_back(grid.taps[t]);
    starts.row_offsets.push_back(grid.row_offsets[t]);
    starts.column_offsets.push_back(grid.column_offsets[t]);
  }
  read_positions(in, starts, first, count, zeros, sources);
  const int64_t runs = starts.taps.size(), length = run * in.c;
  copies.resize(runs * count * length);
  int64_t column = first % grid.columns, row = first / grid.columns;
  for (int64_t i = 0; i < count; ++i, column = column + 1 == grid.columns ? ++row, 0 : column + 1) {
    const int64_t x = column * grid.right + grid.column_offsets[0];
    if (0 <= x && x + run <= in.w) continue;
    const int64_t y0 = row % grid.rows * grid.down, image = row / grid.rows;
    for (int64_t r = 0; r < runs; ++r) {
      const int64_t y = y0 + starts.row_offsets[r];
      float* to = copies.data() + (r * count + i) * length;
      sources[r * count + i] = to;
      for (int64_t t = 0; t < run; ++t, to += in.c)
        if (0 <= y && y < in.h && 0 <= x + t && x + t < in.w)
          std::copy_n(in.data + ((image * in.h + y) * in.w + x + t) * in.c, in.c, to);
        else
          std::fill_n(to, in.c, 0.0f);
    }
  }
}

// Channels [from, end) of one tap of a kernel as [in][columns of the block], filled up with zeros to whole vectors.
// What the strip after the next one reads is fetched meanwhile: no processor foresees rows that lie far apart.
void pack(const Kernel& kernel, const Columns::Block& block, int64_t tap, int64_t from, int64_t end, float* to) {
  const int64_t width = block.vectors * LANES, ahead = 2 * STRIP;
  const float* row = &kernel.at(tap, from, block.from);
  if (block.columns < width) std::fill(to, to + (end - from) * width, 0.0f);
  if (kernel.transposed) {  // the inner loop goes along the memory that is read
    for (int64_t f = 0; f < block.columns; ++f, row += kernel.in) {
      __builtin_prefetch(row + ahead);
      for (int64_t c = 0; c < end - from; ++c) to[c * width + f] = row[c];
    }
  } else {
    for (int64_t c = from; c < end; ++c, row += kernel.out, to += width) {
      for (int64_t f = 0; f < block.columns; f += LINE) __builtin_prefetch(row + ahead * kernel.out + f);
      for (int64_t f = 0; f < block.columns; ++f) to[f] = row[f] * (kernel.scale ? kernel.scale[block.from + f] : 1);
    }
  }
}

// The kernel as [column block][tap of the grid][in][columns of the block].
void pack(ffi::ThreadPool& pool, const Kernel& kernel, const Columns& columns, const std::vector<int64_t>& taps,
          float* packed) {
  const int64_t rows = taps.size() * kernel.in, strips = ceil_div(kernel.in, STRIP);
  parallel_for(pool, columns.list.size() * taps.size() * strips, [&](int64_t i) {
    const auto& block = columns.list[i / strips / taps.size()];
    const int64_t t = i / strips % taps.size(), from = i % strips * STRIP;
    pack(kernel, block, taps[t], from, std::min(from + STRIP, kernel.in),
         packed + block.from * rows + (t * kernel.in + from) * block.vectors * LANES);
  });
}

// Sums over the taps of a grid, of some positions and columns at a time, by weights that were packed for that grid.
// What it is made of has to outlive it.
class Sums {
 public:
  Sums(const Map& in, const Map& out, const Grid& grid, const Epilogue& end = {})
      : in_(in), out_(out), grid_(grid), end_(end), run_(run_of(in, grid)), taps_(grid.taps.size() / run_),
        channels_(in.c * run_), zeros_(channels_), shift_(filled_up(end.shift)), gain_(filled_up(end.gain)),
        offset_(filled_up(end.offset)) {}

  int64_t positions() const { return in_.b * grid_.rows * grid_.columns; }

  // Of positions [first, first + count), one block of columns after the other, by `weights_of(block)`.
  template <typename Weights>
  void operator()(int64_t first, int64_t count, std::span<const Columns::Block> blocks,
                  const Weights& weights_of) const {
    static thread_local std::vector<const float*> sources, added;  // kept: threads wait for each other to allocate
    static thread_local std::vector<float*> targets, to;
    static thread_local std::vector<float> copies;
    sources.resize(taps_ * count);
    sources.resize(taps_ * count + LARGEST_M, zeros_.data());  // for `ahead` of the last
    targets.resize(count), to.resize(count), added.resize(end_.added ? count : 0);
    read_runs(in_, grid_, run_, first, count, zeros_.data(), sources.data(), copies);
    write_positions(out_, grid_, first, count, targets.data());
    for (const auto& block : blocks) {
      const int64_t width = block.vectors * LANES;
      // As many taps at a time as leave their weights in the cache while all positions pass by.
      const int64_t together = std::max<int64_t>(1, (int64_t{1} << 15) / (channels_ * width));
      const float* weights = weights_of(block);
      for (int64_t p = 0; p < count; ++p) to[p] = targets[p] + block.from;
      for (size_t p = 0; p < added.size(); ++p) added[p] = end_.added + (to[p] - out_.data);
      if (!taps_)
        for (float* row : to) std::fill_n(row, block.columns, 0.0f);
      for (int64_t t = 0; t < taps_; t += together)
        for (int64_t p = 0; p < count; p += MAX_M[block.vectors]) {
          const int64_t rows = std::min<int64_t>(MAX_M[block.vectors], count - p);
          Finish finish;
          if (t == 0) finish.shift = shift_.data() + block.from;
          if (t > 0) finish.added = to.data() + p;
          else if (end_.added) finish.added = added.data() + p;
          if (t + together >= taps_) {
            finish.low = end_.low, finish.high = end_.high;
            if (end_.gain) finish.gain = gain_.data() + block.from, finish.offset = offset_.data() + block.from;
          }
          const float* const* from = sources.data() + t * count + p;
          // Several taps read most of what they read before.
          MULTIPLY[block.vectors][rows](std::min(together, taps_ - t), channels_, from, count,
                                        weights + t * channels_ * width, to.data() + p, block.columns, finish,
                                        zeros_.data(), taps_ == 1 ? from + rows : nullptr);
        }
    }
  }

 private:
  std::vector<float> filled_up(const float* values) const {  // to whole vectors
    std::vector<float> filled(padded(out_.c));
    if (values) std::copy_n(values, out_.c, filled.data());
    return filled;
  }

  const Map& in_;
  const Map& out_;
  const Grid& grid_;
  const Epilogue end_;
  const int64_t run_, taps_, channels_;
  const std::vector<float> zeros_, shift_, gain_, offset_;
};

// By a kernel that was packed: threads share the positions.
void convolve(ffi::ThreadPool& pool, const Map& in, const float* packed, const Map& out, const Grid& grid,
              const Columns& columns, const Epilogue& end = {}) {
  const Sums sums(in, out, grid, end);
  const int64_t positions = sums.positions(), rows = std::ssize(grid.taps) * in.c;
  const int64_t even = ceil_div(positions, 6 * threads_of(pool) * 24) * 24;  // for the threads to end together
  const int64_t chunk = std::min(chunk_of(positions, in.c), std::max<int64_t>(even, 48));
  parallel_for(pool, ceil_div(positions, chunk), [&](int64_t i) {
    sums(i * chunk, std::min(chunk, positions - i * chunk), columns.list,
         [&](const Columns::Block& block) { return packed + block.from * rows; });
  });
}

// By a kernel as it is: threads share the columns, and each packs what it multiplies next into its own cache.
void convolve_by_columns(ffi::ThreadPool& pool, const Map& in, const Kernel& kernel, const Map& out, const Grid& grid,
                         const Columns& columns) {
  const Sums sums(in, out, grid);
  const int64_t positions = sums.positions(), chunk = chunk_of(positions, in.c);
  parallel_for(pool, columns.list.size(), [&](int64_t i) {
    const auto& block = columns.list[i];
    const int64_t width = block.vectors * LANES;
    float *const packed = scratch(grid.taps.size() * kernel.in * width), *to = packed;
    for (const int64_t tap : grid.taps)
      for (int64_t from = 0; from < kernel.in; from += STRIP) {
        const int64_t end = std::min(from + STRIP, kernel.in);
        pack(kernel, block, tap, from, end, to);
        to += (end - from) * width;
      }
    for (int64_t first = 0; first < positions; first += chunk)
      sums(first, std::min(chunk, positions - first), std::span(&block, 1), [&](const auto&) { return packed; });
  });
}

void convolve(ffi::ThreadPool& pool, const Map& in, const Kernel& kernel, const Map& out,
              const std::vector<Grid>& grids) {
  const Columns columns(out.c);
  for (const Grid& grid : grids) {
    const int64_t rows = std::ssize(grid.taps) * kernel.in;
    if (in.b * grid.rows * grid.columns <= FEW_POSITIONS && rows * MAX_N * LANES <= MOST_WEIGHTS &&
        std::ssize(columns.list) >= 2 * threads_of(pool)) {
      convolve_by_columns(pool, in, kernel, out, grid, columns);
      continue;
    }
    const Buffer packed(rows * padded(kernel.out));
    pack(pool, kernel, columns, grid.taps, packed.get());
    convolve(pool, in, packed.get(), out, grid, columns);
  }
}

// The gradient by the kernel. A small kernel is summed by each thread over a piece of the positions, and the pieces are
// added in order; of a large one each thread sums some taps and channels over all positions.
void kernel_gradient(ffi::ThreadPool& pool, const Map& in, const Map& slope, float* out, int64_t kh, int64_t kw,
                     const Grid& grid) {
  const int64_t run = run_of(in, grid), taps = kh * kw / run, channels = in.c * run;
  const int64_t positions = in.b * grid.rows * grid.columns, width = padded(slope.c), size = taps * channels * width;
  const bool small = run > 1 || size <= (int64_t{1} << 16);
  const int64_t pieces = small ? std::min<int64_t>(threads_of(pool), positions) : 1;
  const int64_t group = small ? channels : 4 * LARGEST_M, groups = small ? 1 : taps * ceil_div(channels, group);
  const int64_t chunk = small ? chunk_of(positions, in.c + slope.c) : MOST_POSITIONS;
  const std::vector<float> zeros(channels);
  const Columns columns(slope.c);
  const bool direct = pieces == 1 && width == slope.c;  // then the sums are the result
  const Buffer partial(direct ? 0 : pieces * size), rows(width == slope.c ? 0 : positions * width);
  float* const sums = direct ? out : partial.get();
  const float* slopes = slope.data;
  if (width != slope.c) {  // whole vectors are read
    parallel_for(pool, in.b, [&](int64_t image) {
      for (int64_t p = positions / in.b * image; p < positions / in.b * (image + 1); ++p) {
        std::copy_n(slope.data + p * slope.c, slope.c, rows.get() + p * width);
        std::fill_n(rows.get() + p * width + slope.c, width - slope.c, 0.0f);
      }
    });
    slopes = rows.get();
  }
  parallel_for(pool, pieces * groups, [&](int64_t i) {
    const int64_t piece = i / groups, of = i % groups;
    float* sum = sums + piece * size;
    const int64_t begin = positions * piece / pieces, end = positions * (piece + 1) / pieces;
    Grid part = grid;
    int64_t tap_from = 0, c_from = 0, c_end = channels;
    if (!small) {
      tap_from = of / ceil_div(channels, group);
      c_from = of % ceil_div(channels, group) * group;
      c_end = std::min(c_from + group, channels);
      part.taps = {grid.taps[tap_from]};
      part.row_offsets = {grid.row_offsets[tap_from]};
      part.column_offsets = {grid.column_offsets[tap_from]};
    }
    const int64_t count_taps = part.taps.size() / run;
    for (int64_t t = tap_from; t < tap_from + count_taps; ++t)
      std::fill(sum + (t * channels + c_from) * width, sum + (t * channels + c_end) * width, 0.0f);
    static thread_local std::vector<const float*> sources;
    static thread_local std::vector<float> copies;
    sources.resize(part.taps.size() * chunk);
    const float *from[MOST_POSITIONS], *by[MOST_POSITIONS];
    float* const some = scratch(chunk * MAX_N * LANES);  // slopes of positions inside, one after the other
    for (int64_t first = begin; first < end; first += chunk) {
      const int64_t count = std::min(chunk, end - first);
      read_runs(in, part, run, first, count, zeros.data(), sources.data(), copies);
      for (int64_t t = 0; t < count_taps; ++t) {
        int64_t inside = 0;  // positions beyond the edges are zeros and add nothing
        for (int64_t p = 0; p < count; ++p)
          if (const float* source = sources[t * count + p]; source != zeros.data()) {
            from[inside] = source;
            by[inside++] = slopes + (first + p) * width;
          }
        for (const auto& block : columns.list) {
          const bool all = inside == count;
          const int64_t step = all ? width : block.vectors * LANES;
          const float* slopes_of = all ? slopes + first * width + block.from : some;
          if (!all)
            for (int64_t p = 0; p < inside; ++p) std::copy_n(by[p] + block.from, step, some + p * step);
          for (int64_t c = c_from; c < c_end; c += MAX_M[block.vectors])
            CORRELATE[block.vectors][std::min<int64_t>(MAX_M[block.vectors], c_end - c)](
                inside, from, c, slopes_of, step, sum + ((tap_from + t) * channels + c) * width + block.from, width);
        }
      }
    }
  });
  if (direct) return;
  parallel_for(pool, ceil_div(taps * channels, STRIP), [&](int64_t strip) {
    for (int64_t row = strip * STRIP; row < std::min((strip + 1) * STRIP, taps * channels); ++row)
      for (int64_t f = 0; f < slope.c; ++f) {
        float total = 0;
        for (int64_t piece = 0; piece < pieces; ++piece) total += sums[piece * size + row * width + f];
        out[row * slope.c + f] = total;
      }
  });
}

ffi::Error forward(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> kernel,
                   ffi::ResultBuffer<ffi::F32> y, int64_t down, int64_t right, int64_t top, int64_t left) {
  auto k = kernel.dimensions();
  const Map in = map_of(x), out = map_of(*y);
  convolve(pool, in, {kernel.typed_data(), k[0], k[1], k[2], k[3], false}, out,
           forward_grids(out, k[0], k[1], down, right, top, left));
  return ffi::Error::Success();
}

// A kernel, each filter times its scale, as `finished` reads it.
ffi::Error packed(ffi::ThreadPool pool, Array kernel, Array scale, ffi::ResultBuffer<ffi::F32> packed) {
  auto k = kernel.dimensions();
  std::vector<int64_t> taps(k[0] * k[1]);
  std::iota(taps.begin(), taps.end(), 0);
  const int64_t used = std::ssize(taps) * k[2] * padded(k[3]);  // on machines with narrower vectors not all
  std::fill(packed->typed_data() + used, packed->typed_data() + packed->element_count(), 0.0f);
  pack(pool, {kernel.typed_data(), k[0], k[1], k[2], k[3], false, scale.typed_data()}, Columns(k[3]), taps,
       packed->typed_data());
  return ffi::Error::Success();
}

ffi::Error finished(ffi::ThreadPool pool, Array x, Array packed, Array shift, Array limits, Array added, Array gain,
                    Array offset, ffi::ResultBuffer<ffi::F32> y, int64_t down, int64_t right, int64_t top, int64_t left,
                    int64_t rows, int64_t columns) {
  const Map in = map_of(x), out = map_of(*y);
  convolve(pool, in, packed.typed_data(), out, forward_grids(out, rows, columns, down, right, top, left)[0],
           Columns(out.c), epilogue_of(shift, limits, added, gain, offset));
  return ffi::Error::Success();
}

ffi::Error by_input(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> slope, ffi::Buffer<ffi::F32> kernel,
                    ffi::ResultBuffer<ffi::F32> x, int64_t down, int64_t right, int64_t top, int64_t left) {
  auto k = kernel.dimensions();
  const Map in = map_of(slope), out = map_of(*x);
  convolve(pool, in, {kernel.typed_data(), k[0], k[1], k[3], k[2], true}, out,
           backward_grids(out, k[0], k[1], down, right, top, left));
  return ffi::Error::Success();
}

ffi::Error by_kernel(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> slope,
                     ffi::ResultBuffer<ffi::F32> kernel, int64_t down, int64_t right, int64_t top, int64_t left) {
  auto k = kernel->dimensions();
  const Map in = map_of(x), s = map_of(slope);
  kernel_gradient(pool, in, s, kernel->typed_data(), k[0], k[1],
                  forward_grids(s, k[0], k[1], down, right, top, left)[0]);
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pcamjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_convolve, pcamjax::forward, pcamjax::binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_convolve_packed, pcamjax::packed, pcamjax::two_arrays().Ret<pcamjax::Array>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_convolve_finished, pcamjax::finished,
                              pcamjax::with_geometry(pcamjax::with_epilogue(pcamjax::two_arrays()))
                                  .Attr<int64_t>("rows")
                                  .Attr<int64_t>("columns"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_convolve_by_input, pcamjax::by_input, pcamjax::binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_convolve_by_kernel, pcamjax::by_kernel, pcamjax::binding());
