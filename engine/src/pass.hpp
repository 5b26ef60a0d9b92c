// One pass of a few texts through an encoder, and the memory that it works in.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#include "crew.hpp"
#include "encoder.hpp"

namespace tightrope {

// Uninitialised memory on a cache line's boundary, which grows and never shrinks.
class Buffer {
 public:
  template <class T>
  T* of(std::size_t count) {
    const std::size_t bytes = round_up(product(count, sizeof(T)), kAlignment);
    if (bytes > bytes_) {
      memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, bytes)));
      bytes_ = memory_ ? bytes : 0;
      if (!memory_) throw std::bad_alloc();
    }
    return reinterpret_cast<T*>(memory_.get());
  }
  std::size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t bytes_ = 0;
};

struct Workspace {
  Buffer hidden, sums, context, wide, codes, scales, floats, answers, attention;

  std::size_t bytes() const {
    return hidden.bytes() + sums.bytes() + context.bytes() + wide.bytes() + codes.bytes() + scales.bytes() +
           floats.bytes() + answers.bytes() + attention.bytes();
  }
};

class Pass {
 public:
  // `crew` is null where the calling thread works alone.
  Pass(const Encoder& encoder, const Kernels& kernels, bool half_attention, Crew* crew, Workspace& memory)
      : encoder_(encoder), kernels_(kernels), halves_(half_attention), crew_(crew), memory_(memory) {}

  // The batch's offsets count from its first id.
  void run(const Batch& batch, float* out);

 private:
  void make_room(const Batch& batch);
  void embed(const Batch& batch);
  void layer(const Layer& layer, const Layer* next, const Batch& batch);
  void project(const Layer& layer);
  void attend(const Layer& layer, const Batch& batch);
  void pool(const Batch& batch);
  void finish(std::size_t texts, float* out);
  void normalize(const Norm& norm, const float* x, std::size_t first, std::size_t last);

  // Rows [first, last) of x as the layer takes them.
  void prepare(const Linear& linear, const float* x, std::size_t stride, std::size_t first, std::size_t last);
  // x that was prepared, through the layer.
  void multiply(const Linear& linear, const float* x, std::size_t stride, std::size_t rows, Output out);

  // Work by blocks of rows, or whatever else is counted.
  template <class Work>
  void by_rows(std::size_t rows, const Work& work);
  template <class Work>
  void share(std::size_t parts, const Work& work);

  const Encoder& encoder_;
  const Kernels& kernels_;
  const bool halves_;
  Crew* const crew_;
  Workspace& memory_;
  std::size_t tokens_ = 0;
  std::size_t stride_ = 0;  // of hidden and sums
  std::size_t answer_stride_ = 0;
  std::size_t attention_bytes_ = 0;
  float *hidden_ = nullptr, *sums_ = nullptr, *context_ = nullptr, *wide_ = nullptr, *scales_ = nullptr;
  float *floats_ = nullptr, *answers_ = nullptr;
  std::int8_t* codes_ = nullptr;
  std::byte* attention_ = nullptr;
};

}  // namespace tightrope
