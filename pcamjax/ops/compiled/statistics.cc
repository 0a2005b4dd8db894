// Sums over all positions of maps [..., c], channel by channel, in float32, of at least one
// vector of channels.
#include "tile.h"

namespace pcamjax {
namespace {

constexpr int64_t PIECE = 256;  // positions that one thread adds up at a time; the pieces are then added in order
constexpr int TOGETHER = 4;     // vectors of channels

// sums[0] += x, sums[1] += x * (y - shift), over `count` positions of N vectors.
template <int N>
void add(const float* x, const float* y, const float* shift, int64_t count, int64_t channels, float* sums) {
  Vector first[N] = {}, second[N] = {}, from[N];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) from[n] = load(shift + n * LANES);
  for (int64_t p = 0; p < count; ++p, x += channels, y += channels)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const Vector v = load(x + n * LANES);
      first[n] += v;
      second[n] += v * (load(y + n * LANES) - from[n]);
    }
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) {
    store(sums + n * LANES, first[n]);
    store(sums + channels + n * LANES, second[n]);
  }
}

ffi::Error channel_sums(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> y,
                        ffi::Buffer<ffi::F32> shift, ffi::ResultBuffer<ffi::F32> sums) {
  const int64_t channels = x.dimensions().back(), positions = x.element_count() / channels;
  const int64_t pieces = ceil_div(positions, PIECE);
  const Buffer partial(pieces * 2 * channels);
  parallel_for(pool, pieces, [&](int64_t piece) {
    const int64_t first = piece * PIECE, count = std::min(PIECE, positions - first);
    int64_t c = 0;
    const auto by = [&]<int N>() {
      for (; c + N * LANES <= channels; c += N * LANES)
        add<N>(x.typed_data() + first * channels + c, y.typed_data() + first * channels + c, shift.typed_data() + c,
               count, channels, partial.get() + piece * 2 * channels + c);
    };
    by.operator()<TOGETHER>();
    by.operator()<1>();
    if (c < channels) {
      c = channels - LANES;
      by.operator()<1>();
    }
  });
  each_vector(2 * channels, [&](int64_t i, int64_t) {
    Vector total = {};
    for (int64_t piece = 0; piece < pieces; ++piece) total += load(partial.get() + piece * 2 * channels + i);
    store(sums->typed_data() + i, total);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace pcamjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(pcamjax_channel_sums, pcamjax::channel_sums,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>());
