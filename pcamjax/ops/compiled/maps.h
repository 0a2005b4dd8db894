// Maps [b,h,w,c], kernels [kh,kw,c,f], and which positions of a map a kernel's taps read.
#pragma once

#include "tile.h"

namespace pcamjax {

struct Map {
  float* data;
  int64_t b, h, w, c;
};

using Array = ffi::Buffer<ffi::F32>;

inline Map map_of(Array& buffer) {
  auto d = buffer.dimensions();
  return {buffer.typed_data(), d[0], d[1], d[2], d[3]};
}

struct Kernel {
  const float* data;
  int64_t h, w, in, out;
  bool transposed;  // read as [kh,kw,out,in]
  const float* scale = nullptr;  // of each channel of the output, not of a transposed one
  const float& at(int64_t tap, int64_t c, int64_t f) const {
    return transposed ? data[(tap * out + f) * in + c] : data[(tap * in + c) * out + f];
  }
};

constexpr int64_t STRIP = 16;  // channels of a kernel that one thread reads at a time

// A grid of output positions, each reading the input at (position * stride + offset) for each of some taps.
struct Grid {
  int64_t rows, columns, row_from, column_from, step_down, step_right;  // where in the output
  int64_t down, right;                                                  // the stride in the input
  std::vector<int64_t> taps, row_offsets, column_offsets;               // a tap's number and where it reads
};

inline std::vector<Grid> forward_grids(const Map& out, int64_t kh, int64_t kw, int64_t down, int64_t right, int64_t top,
                                int64_t left) {
  Grid grid{out.h, out.w, 0, 0, 1, 1, down, right, {}, {}, {}};
  for (int64_t tap = 0; tap < kh * kw; ++tap) {
    grid.taps.push_back(tap);
    grid.row_offsets.push_back(tap / kw - top);
    grid.column_offsets.push_back(tap % kw - left);
  }
  return {grid};
}

// The gradient by the input: positions that lie alike to the strides read the same taps of the output's gradient.
inline std::vector<Grid> backward_grids(const Map& out, int64_t kh, int64_t kw, int64_t down, int64_t right,
                                        int64_t top, int64_t left) {
  std::vector<Grid> grids;
  for (int64_t y = 0; y < std::min(down, out.h); ++y)
    for (int64_t x = 0; x < std::min(right, out.w); ++x) {
      Grid grid{ceil_div(out.h - y, down), ceil_div(out.w - x, right), y, x, down, right, 1, 1, {}, {}, {}};
      for (int64_t tap = 0; tap < kh * kw; ++tap) {
        const int64_t row = y + top - tap / kw, column = x + left - tap % kw;
        if (row % down || column % right) continue;
        grid.taps.push_back(tap);
        grid.row_offsets.push_back(row / down);
        grid.column_offsets.push_back(column / right);
      }
      grids.push_back(grid);
    }
  return grids;
}

// Where positions [first, first + count) of a grid read each tap: sources[tap * count + i]; zeros outside the map.
inline void read_positions(const Map& in, const Grid& grid, int64_t first, int64_t count, const float* zeros,
                           const float** sources) {
  int64_t column = first % grid.columns, row = first / grid.columns % grid.rows,
          image = first / (grid.columns * grid.rows);
  const int64_t taps = grid.taps.size();
  if (!taps) return;
  std::vector<int64_t> offsets(taps);
  for (int64_t t = 0; t < taps; ++t) offsets[t] = (grid.row_offsets[t] * in.w + grid.column_offsets[t]) * in.c;
  const auto [top, bottom] = std::minmax_element(grid.row_offsets.begin(), grid.row_offsets.end());
  const auto [left, right] = std::minmax_element(grid.column_offsets.begin(), grid.column_offsets.end());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t y0 = row * grid.down, x0 = column * grid.right;
    const float* from = in.data + ((image * in.h + y0) * in.w + x0) * in.c;
    if (y0 + *top >= 0 && y0 + *bottom < in.h && x0 + *left >= 0 && x0 + *right < in.w) {
      for (int64_t t = 0; t < taps; ++t) sources[t * count + i] = from + offsets[t];
    } else {
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t y = y0 + grid.row_offsets[t], x = x0 + grid.column_offsets[t];
        sources[t * count + i] = 0 <= y && y < in.h && 0 <= x && x < in.w ? from + offsets[t] : zeros;
      }
    }
    if (++column == grid.columns) {
      column = 0;
      if (++row == grid.rows) row = 0, ++image;
    }
  }
}

// And where they are written.
inline void write_positions(const Map& out, const Grid& grid, int64_t first, int64_t count, float** targets) {
  if (grid.step_down == 1 && grid.step_right == 1) {  // all of the map in its order
    for (int64_t i = 0; i < count; ++i) targets[i] = out.data + (first + i) * out.c;
    return;
  }
  for (int64_t i = first; i < first + count; ++i) {
    const int64_t x = grid.column_from + i % grid.columns * grid.step_right,
                  y = grid.row_from + i / grid.columns % grid.rows * grid.step_down,
                  image = i / (grid.columns * grid.rows);
    targets[i - first] = out.data + ((image * out.h + y) * out.w + x) * out.c;
  }
}

// What a forward convolution does to its sums: clamp(sum * scale + shift + added) * gain + offset. The scale lies with
// the kernel, `added` is a map like the output, the others go by channel; null pointers add and multiply nothing.
struct Epilogue {
  const float *shift = nullptr, *added = nullptr;
  float low = -INFINITY, high = INFINITY;
  const float *gain = nullptr, *offset = nullptr;
};

inline Epilogue epilogue_of(Array& shift, Array& limits, Array& added, Array& gain, Array& offset) {
  const auto data = [](Array& array) { return array.element_count() ? array.typed_data() : nullptr; };
  return {data(shift), data(added), limits.typed_data()[0], limits.typed_data()[1], data(gain), data(offset)};
}

// The end of a convolution's handler: one array out, strides and pads before.
template <typename Inputs>
auto with_geometry(Inputs inputs) {
  return std::move(inputs)
      .template Ret<Array>()
      .template Attr<int64_t>("down")
      .template Attr<int64_t>("right")
      .template Attr<int64_t>("top")
      .template Attr<int64_t>("left");
}

inline auto two_arrays() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Array>().Arg<Array>(); }

// The handlers of a convolution and of both of its gradients.
inline auto binding() { return with_geometry(two_arrays()); }

// What an epilogue wants after the other inputs: shift, limits, added, gain and offset; the last three may have no
// elements.
template <typename Inputs>
auto with_epilogue(Inputs inputs) {
  return std::move(inputs)
      .template Arg<Array>()
      .template Arg<Array>()
      .template Arg<Array>()
      .template Arg<Array>()
      .template Arg<Array>();
}

// The handler of a forward convolution with an epilogue: the scale comes after the kernel.
inline auto finished_binding() { return with_geometry(with_epilogue(two_arrays().Arg<Array>())); }

}  // namespace pcamjax
