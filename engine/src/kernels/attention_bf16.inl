// Attention of one head in bfloat16 with sums in float32, for processors that multiply pairs of bfloat16.
//
// Queries and weights are read by rows; keys and values lie in pairs of inputs, as both AVX-512 and AMX want them: keys
// [size / 2][keys][2], values [keys / 2][size][2], everything filled up with zeros. The file that includes this says how
// rows are multiplied by pairs, and what must be held meanwhile.
//
// With HALF_TERMS 3 a number is the sum of two bfloat16, and a product the sum of three (all but the one of both small
// parts): the terms lie behind one another as if there were three times the inputs, [large, large, small] in the rows and
// [large; small; large] in the pairs. That has the accuracy of float32 for three times the multiplying, which matrix
// tiles hardly notice.
#pragma once

#ifndef HALF_TERMS
#error "the instruction set's file says of how many products of bfloat16 one is the sum: 1 or 3"
#endif

#include <immintrin.h>

#include "attention.inl"

namespace tightrope {
namespace {

// out [rows, columns] = x [rows, depth] x pairs [depth / 2][columns][2], for up to 32 rows; there is room for all 32.
inline void multiply_halves(const std::uint16_t* x, std::size_t rows, std::size_t depth, const std::uint16_t* pairs,
                            std::size_t columns, float* out);

constexpr std::size_t kPair = 32;  // inputs and columns come in multiples of this
constexpr std::size_t kTerms = HALF_TERMS;
constexpr std::size_t kRowsAtOnce = 32;  // queries that go through each step together

inline std::size_t half_attention_bytes(std::size_t length, std::size_t size) {
  const std::size_t keys = round_up(length, kPair), wide = round_up(size, kPair);
  return kTerms * 2 * keys * wide * 2 + kRowsAtOnce * (wide * (2 * kTerms + 4) + keys * (4 + 2 * kTerms));
}

inline __m256i half(V value) { return (__m256i)_mm512_cvtneps_pbh((__m512)value); }
inline V large_part(V value) { return (V)((I)_mm512_cvtepu16_epi32(half(value)) << 16); }
inline V small_part(V value) { return value - large_part(value); }

// bfloat16 of both in each 32 bits, low first.
inline __m512i pair_up(V low, V high) {
  return (__m512i)((I)_mm512_cvtepu16_epi32(half(low)) | ((I)_mm512_cvtepu16_epi32(half(high)) << 16));
}

// A vector of a row, and its terms `apart` from one another.
inline void put_halves(std::uint16_t* to, std::size_t apart, V value) {
  const __m256i large = half(value);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), large);
  if constexpr (kTerms == 1) return;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + apart), large);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2 * apart), half(small_part(value)));
}

// Features [d, d + 32) of a row as pairs, zeros beyond the real ones; only their small parts if `small`.
inline __m512i pairs_of(const float* row, std::size_t d, std::size_t size, bool small) {
  V low = d < size ? at(row, d, size) : V{}, high = d + kLanes < size ? at(row, d + kLanes, size) : V{};
  if (small) low = small_part(low), high = small_part(high);
  return _mm512_inserti64x4(_mm512_castsi256_si512(half(low)), half(high), 1);
}

// 16 rows of 16 pairs to 16 columns, in place.
inline void transpose(__m512i (&v)[16]) {
  __m512i w[16];
  for (int i = 0; i < 16; i += 2) {
    w[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    w[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(w[i], w[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(w[i], w[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(w[i + 1], w[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(w[i + 1], w[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    const __m512i a = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88), b = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
    const __m512i c = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
    const __m512i d = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
    w[i] = _mm512_shuffle_i32x4(a, c, 0x88);
    w[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
    w[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
    w[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
  for (int i = 0; i < 16; ++i) v[i] = w[i];
}

inline void lay_out_keys(const Head& head, std::size_t keys, std::size_t wide, bool small, std::uint16_t* out) {
  for (std::size_t j = 0; j < keys; j += 16)
    for (std::size_t d = 0; d < wide; d += kPair) {
      __m512i rows[16];
      for (std::size_t r = 0; r < 16; ++r)
        rows[r] = j + r < head.length ? pairs_of(head.key + (j + r) * head.stride, d, head.size, small)
                                      : _mm512_setzero_si512();
      transpose(rows);
      for (std::size_t pair = 0; pair < 16; ++pair)
        _mm512_storeu_si512(out + ((d / 2 + pair) * keys + j) * 2, rows[pair]);
    }
}

inline void lay_out_values(const Head& head, std::size_t keys, std::size_t wide, bool small, std::uint16_t* out) {
  for (std::size_t j = 0; j < keys; j += 2)
    for (std::size_t d = 0; d < wide; d += kLanes) {
      const float* from = head.value + j * head.stride;
      V low = j < head.length && d < head.size ? at(from, d, head.size) : V{};
      V high = j + 1 < head.length && d < head.size ? at(from + head.stride, d, head.size) : V{};
      if (small) low = small_part(low), high = small_part(high);
      _mm512_storeu_si512(out + (j * wide + 2 * d), pair_up(low, high));
    }
}

// The terms of pairs behind one another: the large parts, the small ones, and the large ones again.
template <class LayOut>
inline void lay_out(std::uint16_t* out, std::size_t count, LayOut one) {
  one(false, out);
  if constexpr (kTerms == 1) return;
  one(true, out + count);
  std::memcpy(out + 2 * count, out, count * sizeof *out);
}

// Scores of some rows to weights in bfloat16, with zeros for the keys that fill up the last pairs.
template <std::size_t Rows>
inline void weigh(const Head& head, float* scores, std::size_t keys, float* shares, std::uint16_t* weights) {
  softmax<Rows>(scores, keys, head.length, head.scale, shares,
                [=](std::size_t row, std::size_t key, V weight) {
                  put_halves(weights + row * kTerms * keys + key, keys, weight);
                });
  for (std::size_t key = round_up(head.length, kLanes); key < keys; key += kLanes)
    for (std::size_t row = 0; row < Rows; ++row) put_halves(weights + row * kTerms * keys + key, keys, V{});
}

template <class Held>
void attend_halves(const Head& head, std::byte* scratch) {
  const Held held;  // registers that are in use meanwhile
  const std::size_t keys = round_up(head.length, kPair), wide = round_up(head.size, kPair);
  auto* key_pairs = reinterpret_cast<std::uint16_t*>(scratch);
  std::uint16_t* value_pairs = key_pairs + kTerms * keys * wide;
  std::uint16_t* queries = value_pairs + kTerms * keys * wide;
  auto* scores = reinterpret_cast<float*>(queries + kRowsAtOnce * kTerms * wide);
  float* context = scores + kRowsAtOnce * keys;
  auto* weights = reinterpret_cast<std::uint16_t*>(context + kRowsAtOnce * wide);
  lay_out(key_pairs, keys * wide,
          [&](bool small, std::uint16_t* out) { lay_out_keys(head, keys, wide, small, out); });
  lay_out(value_pairs, keys * wide,
          [&](bool small, std::uint16_t* out) { lay_out_values(head, keys, wide, small, out); });
  for (std::size_t row = 0; row < head.length; row += kRowsAtOnce) {
    const std::size_t rows = head.length - row < kRowsAtOnce ? head.length - row : kRowsAtOnce;
    float shares[kRowsAtOnce];
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t d = 0; d < wide; d += kLanes)
        put_halves(queries + r * kTerms * wide + d, wide,
                   d < head.size ? at(head.query + (row + r) * head.stride, d, head.size) : V{});
    multiply_halves(queries, rows, kTerms * wide, key_pairs, keys, scores);
    std::size_t r = 0;
    for (; r + 4 <= rows; r += 4) weigh<4>(head, scores + r * keys, keys, shares + r, weights + r * kTerms * keys);
    for (; r < rows; ++r) weigh<1>(head, scores + r * keys, keys, shares + r, weights + r * kTerms * keys);
    multiply_halves(weights, rows, kTerms * keys, value_pairs, wide, context);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t d = 0; d < head.size; d += kLanes)
        store_some(head.context + (row + r) * head.context_stride + d, load(context + r * wide + d) * shares[r],
                   head.size - d);
  }
}

}  // namespace
}  // namespace tightrope
