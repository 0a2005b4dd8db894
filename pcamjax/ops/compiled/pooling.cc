// Maxima over windows of maps [b,h,w,c] and their gradient, in float32, of at least one vector of channels.
#include <limits>

#include "maps.h"

namespace pcamjax {
namespace {

typedef int32_t Places __attribute__((vector_size(4 * LANES)));

// The windows of an output: where each reads; null beyond the map's edge.
Grid windows_of(const Map& out, int64_t window, int64_t stride, int64_t top, int64_t left) {
  return forward_grids(out, window, window, stride, stride, top, left)[0];
}

ffi::Error maximum(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::F32> y, int64_t window,
                   int64_t stride, int64_t top, int64_t left) {
  const Map in = map_of(x), out = map_of(*y);
  const Grid grid = windows_of(out, window, stride, top, left);
  const std::vector<float> lowest(in.c, -std::numeric_limits<float>::infinity());
  parallel_for(pool, out.b * out.h, [&](int64_t i) {
    static thread_local std::vector<const float*> sources;
    sources.resize(window * window * out.w);
    read_positions(in, grid, i * out.w, out.w, lowest.data(), sources.data());
    for (int64_t p = 0; p < out.w; ++p)
      each_vector(in.c, [&](int64_t c, int64_t) {
        Vector largest = load(sources[p] + c);
        for (int64_t t = 1; t < window * window; ++t) {
          const Vector v = load(sources[t * out.w + p] + c);
          largest = v > largest ? v : largest;
        }
        store(out.data + (i * out.w + p) * in.c + c, largest);
      });
  });
  return ffi::Error::Success();
}

// Each window's slope goes to its first maximum in row-major order.
ffi::Error by_input(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> slope,
                    ffi::ResultBuffer<ffi::F32> gradient, int64_t window, int64_t stride, int64_t top, int64_t left) {
  const Map in = map_of(x), s = map_of(slope), out = map_of(*gradient);
  const Grid grid = windows_of(s, window, stride, top, left);
  const std::vector<float> lowest(in.c, -std::numeric_limits<float>::infinity());
  parallel_for(pool, in.b, [&](int64_t image) {
    std::fill_n(out.data + image * in.h * in.w * in.c, in.h * in.w * in.c, 0.0f);
    static thread_local std::vector<const float*> sources;
    sources.resize(window * window * s.w);
    for (int64_t row = image * s.h; row < (image + 1) * s.h; ++row) {
      read_positions(in, grid, row * s.w, s.w, lowest.data(), sources.data());
      for (int64_t p = 0; p < s.w; ++p)
        each_vector(in.c, [&](int64_t c, int64_t number) {
          Vector largest = load(sources[p] + c);
          Places winner = {};
          if (sources[p] == lowest.data()) winner -= 1;
          for (int32_t t = 1; t < window * window; ++t) {
            const float* source = sources[t * s.w + p];
            if (source == lowest.data()) continue;
            const Vector v = load(source + c);
            const Places better = (v > largest) | (winner < 0);
            winner = better ? Places{} + t : winner;
            largest = better ? v : largest;
          }
          Vector v = load(slope.typed_data() + (row * s.w + p) * in.c + c);
          for (int64_t lane = 0; lane < number * LANES - c; ++lane) v[lane] = 0;  // the vector before has added these
          for (int32_t t = 0; t < window * window; ++t) {
            const float* source = sources[t * s.w + p];
            if (source == lowest.data()) continue;
            float* to = out.data + (source - in.data) + c;
            store(to, load(to) + (winner == t ? v : Vector{}));
          }
        });
    }
  });
  return ffi::Error::Success();
}

auto bind() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<ffi::Buffer<ffi::F32>>(); }

auto with_attributes(auto&& binding) {
  return std::move(binding)
      .template Ret<ffi::Buffer<ffi::F32>>()
      .template Attr<int64_t>("window")
      .template Attr<int64_t>("stride")
      .template Attr<int64_t>("top")
      .template Attr<int64_t>("left");
}

}  // namespace
}  // namespace pcamjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_max_pool, pcamjax::maximum, pcamjax::with_attributes(pcamjax::bind()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_max_pool_by_input, pcamjax::by_input,
                              pcamjax::with_attributes(pcamjax::bind().Arg<xla::ffi::Buffer<xla::ffi::F32>>()));
