// Attention of one head in float32, on whatever vectors the file is compiled for.
#pragma once
#include "vectors.inl"

namespace tightrope {
namespace {

constexpr std::size_t kQueries = 8;  // rows that share each load of the keys and values: as many sums hide an FMA
constexpr float kMasked = -1e30f;

inline std::size_t attention_bytes(std::size_t length, std::size_t size) {
  const std::size_t keys = round_up(length, kLanes), wide = round_up(size, kLanes);
  return round_up((size * keys + length * wide + kQueries * keys) * sizeof(float), 64);
}

// Rows of scores, `stride` floats apart, to weights e^(scale * (score - largest)), zeros beyond `length`, each handed to
// `put(row, key, weights)`; `shares` are one over their sums. Several rows at once: one alone waits for its own maximum.
template <std::size_t Rows, class Put>
inline void softmax(float* scores, std::size_t stride, std::size_t length, float scale, float* shares, Put put) {
  const std::size_t keys = round_up(length, kLanes);
  const float factor = scale * 1.44269504f;
  V most[Rows];
  Sixteen total[Rows];
  for (std::size_t r = 0; r < Rows; ++r) {
    for (std::size_t j = length; j < keys; ++j) scores[r * stride + j] = kMasked;
    most[r] = all(kMasked);
  }
  for (std::size_t j = 0; j < keys; j += kLanes)
    for (std::size_t r = 0; r < Rows; ++r) most[r] = larger(most[r], load(scores + r * stride + j));
  for (std::size_t r = 0; r < Rows; ++r) most[r] = all(largest(most[r]));
  for (std::size_t j = 0; j < keys; j += kLanes)
    for (std::size_t r = 0; r < Rows; ++r) {
      const V weight = power_of_two((load(scores + r * stride + j) - most[r]) * factor);
      total[r].add(j, weight);
      put(r, j, weight);
    }
  for (std::size_t r = 0; r < Rows; ++r) shares[r] = 1.0f / total[r].sum();
}

// rows of scores [rows, keys] = query [rows, size] x keys [size, keys].
template <std::size_t Rows>
inline void score(const Head& head, std::size_t row, const float* keys_across, std::size_t keys, float* scores) {
  for (std::size_t j = 0; j < keys; j += kLanes) {
    V total[Rows] = {};
    for (std::size_t d = 0; d < head.size; ++d) {
      const V key = load(keys_across + d * keys + j);
      for (std::size_t r = 0; r < Rows; ++r) total[r] = total[r] + head.query[(row + r) * head.stride + d] * key;
    }
    for (std::size_t r = 0; r < Rows; ++r) store(scores + r * keys + j, total[r]);
  }
}

// rows of context = weights [rows, length] x values [length, wide], divided by each row's sum.
template <std::size_t Rows>
inline void gather_context(const Head& head, std::size_t row, const float* values, std::size_t wide,
                           const float* weights, std::size_t keys, const float* shares) {
  for (std::size_t d = 0; d < head.size; d += kLanes) {
    V total[Rows] = {};
    for (std::size_t j = 0; j < head.length; ++j) {
      const V value = load(values + j * wide + d);
      for (std::size_t r = 0; r < Rows; ++r) total[r] = total[r] + weights[r * keys + j] * value;
    }
    for (std::size_t r = 0; r < Rows; ++r)
      store_some(head.context + (row + r) * head.context_stride + d, total[r] * shares[r], head.size - d);
  }
}

template <std::size_t Rows>
inline void attend_rows(const Head& head, std::size_t row, const float* keys_across, const float* values,
                        float* scores) {
  const std::size_t keys = round_up(head.length, kLanes);
  float shares[Rows];
  score<Rows>(head, row, keys_across, keys, scores);
  constexpr std::size_t kTogether = Rows < 4 ? Rows : 4;
  for (std::size_t r = 0; r < Rows; r += kTogether) {
    float* some = scores + r * keys;
    softmax<kTogether>(some, keys, head.length, head.scale, shares + r,
                       [=](std::size_t i, std::size_t j, V weight) { store(some + i * keys + j, weight); });
  }
  gather_context<Rows>(head, row, values, round_up(head.size, kLanes), scores, keys, shares);
}

void attend(const Head& head, std::byte* scratch) {
  const std::size_t keys = round_up(head.length, kLanes), wide = round_up(head.size, kLanes);
  auto* across = reinterpret_cast<float*>(scratch);
  float* values = across + head.size * keys;
  float* scores = values + head.length * wide;
  for (std::size_t j = 0; j < keys; ++j)
    for (std::size_t d = 0; d < head.size; ++d)
      across[d * keys + j] = j < head.length ? head.key[j * head.stride + d] : 0.0f;
  for (std::size_t j = 0; j < head.length; ++j)
    for (std::size_t d = 0; d < wide; d += kLanes)
      store(values + j * wide + d, at(head.value + j * head.stride, d, head.size));
  std::size_t row = 0;
  for (; row + kQueries <= head.length; row += kQueries) attend_rows<kQueries>(head, row, across, values, scores);
  for (; row < head.length; ++row) attend_rows<1>(head, row, across, values, scores);
}

}  // namespace
}  // namespace tightrope
