// Vectors as the compiler's own extension, LANES floats wide. Included once by each instruction set's file.
#pragma once
//
// Everything here is in an unnamed namespace: each file is compiled for other instructions, and must keep its own copy.
#ifndef LANES
#error "the instruction set's file says how many floats a vector has"
#endif

#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels.hpp"

namespace tightrope {
namespace {

constexpr std::size_t kLanes = LANES;
typedef float V __attribute__((vector_size(LANES * 4)));
typedef std::int32_t I __attribute__((vector_size(LANES * 4)));
typedef std::int8_t Bytes __attribute__((vector_size(LANES)));
typedef std::uint16_t Halves __attribute__((vector_size(LANES * 2)));

// The same where no boundary is promised. It is read and written as floats and not through memcpy: bytes could be part
// of anything, and the compiler would fetch every pointer again after each store.
typedef float Anywhere __attribute__((vector_size(LANES * 4), aligned(4)));

inline V load(const float* from) { return *reinterpret_cast<const Anywhere*>(from); }
inline void store(float* to, V value) { *reinterpret_cast<Anywhere*>(to) = value; }

inline V all(float value) { return V{} + value; }
inline I all(std::int32_t value) { return I{} + value; }

// The first `count` floats, zeros behind them; never reads beyond.
inline V load_some(const float* from, std::size_t count) {
  V value{};
  for (std::size_t i = 0; i < count; ++i) value[i] = from[i];
  return value;
}

// The first `count` lanes, all at most; never writes beyond.
inline void store_some(float* to, V value, std::size_t count) {
  if (count >= kLanes) return store(to, value);
  for (std::size_t i = 0; i < count; ++i) to[i] = value[i];
}

inline V at(const float* from, std::size_t index, std::size_t width) {
  return index + kLanes <= width ? load(from + index) : load_some(from + index, width - index);
}

inline V larger(V a, V b) { return a > b ? a : b; }
inline V smaller(V a, V b) { return a < b ? a : b; }
inline V magnitude(V a) { return (V)((I)a & 0x7fffffff); }

template <std::size_t Distance, std::size_t... Index>
inline V swapped(V a, std::index_sequence<Index...>) {
  return __builtin_shufflevector(a, a, (Index ^ Distance)...);
}

// Each lane takes the value of the lane whose number differs in the bit `Distance`.
template <std::size_t Distance>
inline V swapped(V a) {
  return swapped<Distance>(a, std::make_index_sequence<kLanes>());
}

inline float sum(V a) {
  if constexpr (kLanes > 8) a = a + swapped<8 % kLanes>(a);
  if constexpr (kLanes > 4) a = a + swapped<4 % kLanes>(a);
  a = a + swapped<2>(a);
  a = a + swapped<1>(a);
  return a[0];
}

// Sixteen sums side by side, whatever a vector's width: they are added up in one order on every instruction set.
struct Sixteen {
  V part[16 / kLanes] = {};

  // The vector that begins at a multiple of its width.
  void add(std::size_t index, V value) {
    V& sums = part[index / kLanes % (16 / kLanes)];
    sums = sums + value;
  }

  float sum() const {
    V v[16 / kLanes];
    for (std::size_t i = 0; i < 16 / kLanes; ++i) v[i] = part[i];
    for (std::size_t h = 8 / kLanes; h > 0; h /= 2)
      for (std::size_t i = 0; i < h; ++i) v[i] = v[i] + v[i + h];
    return tightrope::sum(v[0]);
  }
};

inline float largest(V a) {
  if constexpr (kLanes > 8) a = larger(a, swapped<8 % kLanes>(a));
  if constexpr (kLanes > 4) a = larger(a, swapped<4 % kLanes>(a));
  a = larger(a, swapped<2>(a));
  a = larger(a, swapped<1>(a));
  return a[0];
}

// To the nearest integer, halves to even, for |a| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
inline I rounded(V a) { return (I)(a + 12582912.0f) - 0x4b400000; }

inline V widened(I a) { return __builtin_convertvector(a, V); }

// 2^a for a <= 0, with relative error 1e-7; what would be denormal is zero.
inline V power_of_two(V a) {
  const V least = all(-126.0f);
  const V clamped = larger(a, least);
  const I whole = rounded(clamped);
  const V part = clamped - widened(whole);
  V value = all(1.327648172e-03f);
  value = value * part + 9.675546330e-03f;
  value = value * part + 5.550713290e-02f;
  value = value * part + 2.402211963e-01f;
  value = value * part + 6.931469670e-01f;
  value = value * part + 1.000000072e+00f;
  const V found = (V)((I)value + (whole << 23));
  return a > least ? found : V{};
}

// x * Phi(x). Phi is a polynomial in x^2, clamped where it reaches 0 and 1; absolute error 1.6e-5.
inline V gelu(V x) {
  const V inside = smaller(larger(x, all(-4.5f)), all(4.5f));
  const V s = inside * inside * (2.0f / 20.25f) - 1.0f;
  V p = all(-9.378882824e-04f);
  p = p * s + 4.219637718e-03f;
  p = p * s + -7.802312262e-03f;
  p = p * s + 1.083632093e-02f;
  p = p * s + -1.751235314e-02f;
  p = p * s + 2.828744799e-02f;
  p = p * s + -4.042950273e-02f;
  p = p * s + 5.472176895e-02f;
  p = p * s + -7.717622072e-02f;
  p = p * s + 1.569042057e-01f;
  return x * (inside * p + 0.5f);
}

// 1 / (1 + e^-x), from 2^-|x|, which cannot overflow.
inline V sigmoid(V x) {
  const V small = power_of_two(magnitude(x) * -1.44269504f);
  const V low = small / (1.0f + small);
  return x < 0.0f ? low : 1.0f - low;
}

inline V tanh(V x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

inline V gelu_tanh(V x) { return x * sigmoid(1.5957691216f * (x + 0.044715f * x * x * x)); }

template <Activation kind>
inline V activated(V x) {
  if constexpr (kind == Activation::gelu) return gelu(x);
  if constexpr (kind == Activation::gelu_tanh) return gelu_tanh(x);
  if constexpr (kind == Activation::relu) return larger(x, V{});
  if constexpr (kind == Activation::tanh) return tanh(x);
  if constexpr (kind == Activation::sigmoid) return sigmoid(x);
  return x;
}

// Calls `act` with the activation as a constant: the choice is made once a call, not once a vector.
template <class Act>
inline void with_activation(Activation kind, Act act) {
  switch (kind) {
    case Activation::gelu: return act.template operator()<Activation::gelu>();
    case Activation::gelu_tanh: return act.template operator()<Activation::gelu_tanh>();
    case Activation::relu: return act.template operator()<Activation::relu>();
    case Activation::tanh: return act.template operator()<Activation::tanh>();
    case Activation::sigmoid: return act.template operator()<Activation::sigmoid>();
    default: return act.template operator()<Activation::identity>();
  }
}

}  // namespace
}  // namespace tightrope
