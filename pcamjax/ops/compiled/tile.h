// What all kernels share: vectors, work split over XLA's threads, and the two small matrix products.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace pcamjax {

namespace ffi = xla::ffi;

// Registers limit how many sums a product can keep: MAX_N vectors of LANES columns, for MAX_M[vectors] rows.
#if defined(__AVX512F__)
constexpr int LANES = 16, MAX_N = 4, MAX_M[] = {0, 12, 12, 8, 6};
#elif defined(__AVX__)
constexpr int LANES = 8, MAX_N = 2, MAX_M[] = {0, 6, 6};
#else
constexpr int LANES = 4, MAX_N = 4, MAX_M[] = {0, 8, 8, 6, 6};
#endif
constexpr int LARGEST_M = 12;
constexpr int64_t LINE = 16;  // floats of a cache line

typedef float Vector __attribute__((vector_size(4 * LANES)));

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int64_t padded(int64_t columns) { return ceil_div(columns, LANES) * LANES; }

// Memory that is not set to anything, aligned to a cache line. The last few blocks are kept for the next call: to get
// fresh pages from the system takes longer than to fill them.
class Buffer {
 public:
  explicit Buffer(int64_t floats) : block_(take(std::max<int64_t>(floats, 1))) {}
  Buffer(Buffer&& other) : block_(std::exchange(other.block_, {})) {}
  ~Buffer() {
    if (block_.data) give_back(block_);
  }
  float* get() const { return block_.data; }
  float& operator[](int64_t i) const { return block_.data[i]; }

 private:
  struct Block {
    float* data = nullptr;
    int64_t floats = 0;
  };
  static constexpr size_t KEPT = 4;
  static inline std::mutex mutex_;
  static inline std::vector<Block> kept_;

  static Block take(int64_t floats) {
    {
      std::lock_guard lock(mutex_);
      auto best = kept_.end();
      for (auto block = kept_.begin(); block != kept_.end(); ++block)
        if (block->floats >= floats && (best == kept_.end() || block->floats < best->floats)) best = block;
      if (best != kept_.end()) {
        const Block block = *best;
        kept_.erase(best);
        return block;
      }
    }
    return {static_cast<float*>(std::aligned_alloc(64, ceil_div(floats * 4, 64) * 64)), floats};
  }

  static void give_back(Block block) {
    std::lock_guard lock(mutex_);
    kept_.push_back(block);
    if (kept_.size() <= KEPT) return;
    auto smallest = std::min_element(kept_.begin(), kept_.end(), [](auto& a, auto& b) { return a.floats < b.floats; });
    std::free(smallest->data);
    kept_.erase(smallest);
  }

  Block block_;
};

// Memory of this thread's own, aligned to a cache line, until its next call: once for a piece of work. What lies in
// another core's cache would come slowly.
inline float* scratch(int64_t floats) {
  static thread_local std::unique_ptr<float, decltype(&std::free)> memory(nullptr, std::free);
  static thread_local int64_t size = 0;
  if (size < floats) {
    memory.reset(static_cast<float*>(std::aligned_alloc(64, ceil_div(floats * 4, 64) * 64)));
    size = floats;
  }
  return memory.get();
}

inline int64_t threads_of(ffi::ThreadPool& pool) { return std::max<int64_t>(pool.num_threads(), 1); }

// Calls work(0) ... work(count - 1) on the threads of the pool and on this one; returns when all are done. Each thread
// begins with its own part of them, so that a core finds what the kernel before left in its caches, and then takes what
// others have not begun.
template <typename Work>
void parallel_for(ffi::ThreadPool& pool, int64_t count, const Work& work) {
  struct alignas(64) Part {
    std::atomic<int64_t> next;
    int64_t end;
  };
  struct State {
    std::vector<Part> parts;
    std::atomic<int64_t> done{0};
  };
  const int64_t threads = std::min(threads_of(pool), count);
  auto state = std::make_shared<State>(std::vector<Part>(threads));
  for (int64_t t = 0; t < threads; ++t) {
    state->parts[t].next = count * t / threads;
    state->parts[t].end = count * (t + 1) / threads;
  }
  // A thread that comes late finds nothing left and touches neither `work` nor what it refers to.
  auto help = [state, count, threads, &work](int64_t thread) {
    for (int64_t t = thread; t < thread + threads; ++t)
      for (int64_t i; (i = state->parts[t % threads].next.fetch_add(1)) < state->parts[t % threads].end;) {
        work(i);
        if (state->done.fetch_add(1) + 1 == count) state->done.notify_all();
      }
  };
  for (int64_t t = 1; t < threads; ++t) pool.Schedule([help, t] { help(t); });
  help(0);
  for (int64_t done; (done = state->done.load()) < count;) state->done.wait(done);
}

// Calls work(channel, number) for the vectors that cover at least LANES channels; the last may overlap the one before.
template <typename Work>
inline void each_vector(int64_t channels, const Work& work) {
  int64_t number = 0;
  for (; (number + 1) * LANES <= channels; ++number) work(number * LANES, number);
  if (channels % LANES) work(channels - LANES, number);
}

// What becomes of sums as they are stored: clamp(sum + shift + added) * gain + offset. `added` goes by row and column,
// the others by column, filled up to whole vectors; null pointers add and multiply nothing.
struct Finish {
  const float* shift = nullptr;
  const float* const* added = nullptr;
  float low = -INFINITY, high = INFINITY;
  const float *gain = nullptr, *offset = nullptr;

  // The same for the columns from `column` on, of what goes by column.
  Finish from(int64_t column) const {
    const auto moved = [column](const float* values) { return values ? values + column : nullptr; };
    return {moved(shift), added, low, high, moved(gain), moved(offset)};
  }

  // Of sums to which the shift has been added, in place; one step for all of them after the other, so that they stay in
  // their registers.
  template <int M, int N>
  void apply(Vector* sums, int64_t columns) const {
    if (added)
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        float row[N * LANES] = {};
        if (columns < N * LANES) std::copy_n(added[m], columns, row);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sums[m * N + n] += load((columns < N * LANES ? row : added[m]) + n * LANES);
      }
    const Vector least = Vector{} + low, most = Vector{} + high;  // nan stays nan
    if (low > -INFINITY)
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sums[m * N + n] = sums[m * N + n] < least ? least : sums[m * N + n];
    if (high < INFINITY)
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sums[m * N + n] = sums[m * N + n] > most ? most : sums[m * N + n];
    if (gain)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const Vector by = load(gain + n * LANES), more = load(offset + n * LANES);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) sums[m * N + n] = sums[m * N + n] * by + more;
      }
  }
};

// Two products of small matrices, by [vectors of columns][rows], compiled for each size that fits the registers.
//
// Multiply: out[m][:] = finish(sum_t sum_c rows[t * row_step + m][c] * weights[t][c][:]); a tap all of whose rows are
// `zeros` is left out. `ahead`, if not null, are the rows of the next call, as many as of this one, which are fetched
// into the cache meanwhile, as is what is written and added.
// Correlate: out[m][:] += sum_p a[p][from + m] * b[p][:].
using Multiply = void (*)(int taps, int64_t channels, const float* const* rows, int64_t row_step, const float* weights,
                          float* const* out, int64_t columns, const Finish& finish, const float* zeros,
                          const float* const* ahead);
using Correlate = void (*)(int64_t count, const float* const* a, int64_t from, const float* b, int64_t b_step,
                           float* out, int64_t out_step);
extern const Multiply MULTIPLY[5][LARGEST_M + 1];
extern const Correlate CORRELATE[5][LARGEST_M + 1];

// Columns in blocks of as many vectors as fit the registers, evenly: 5 vectors are 3 + 2, not 4 + 1.
struct Columns {
  explicit Columns(int64_t columns) {
    const int64_t vectors = ceil_div(columns, LANES), blocks = ceil_div(vectors, MAX_N);
    for (int64_t i = 0, from = 0; i < blocks; ++i) {
      const int64_t n = vectors / blocks + (i < vectors % blocks);
      list.push_back({from * LANES, std::min(n * LANES, columns - from * LANES), static_cast<int>(n)});
      from += n;
    }
  }
  struct Block {
    int64_t from, columns;
    int vectors;
  };
  std::vector<Block> list;
};

}  // namespace pcamjax
