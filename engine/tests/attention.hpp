// Checks of attention, in float32 and in whatever the instruction set prefers.
#pragma once

#include <algorithm>

#include "checks.hpp"
#include "layers.hpp"
#include "truth.hpp"

namespace tightrope {
namespace {

using Attend = void (*)(const Head& head, std::byte* scratch);
using Bytes = std::size_t (*)(std::size_t length, std::size_t size);

// A head's query, key and value side by side, rows as near as they can be: the last ends where the memory does.
struct HeadCase {
  std::size_t length, size;
  Buffer<float> rows, context;
  Head head;

  HeadCase(std::size_t length, std::size_t size, float spread)
      : length(length), size(size), rows(Random(length * 131 + size).normals(3 * length * size)),
        context(length * (size + 3) - 3, kMark) {
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (i / size % 3 < 2) rows[i] *= spread;
    head = {rows.data(), rows.data() + size, rows.data() + 2 * size, 3 * size, context.data(), size + 3, length, size,
            1 / std::sqrt(static_cast<float>(size))};
  }
  void run(Attend attend, Bytes bytes) {
    const Buffer<std::byte> scratch(bytes(length, size), std::byte{0xff});  // all nan, so that nothing is taken from it
    attend(head, scratch.data());
  }
};

// One query's answer: `scores` are the largest sums of magnitudes that a score is made of.
struct Answer {
  std::vector<double> context, magnitudes;
  double scores = 0;

  Answer(const Head& head, std::size_t row) : context(head.size), magnitudes(head.size) {
    std::vector<double> weights(head.length);
    for (std::size_t j = 0; j < head.length; ++j) {
      double sum = 0;
      for (std::size_t d = 0; d < head.size; ++d) {
        const double product = static_cast<double>(head.query[row * head.stride + d]) * head.key[j * head.stride + d];
        weights[j] += product * head.scale;
        sum += std::abs(product) * head.scale;
      }
      scores = std::max(scores, sum);
    }
    const double top = *std::max_element(weights.begin(), weights.end());
    double total = 0;
    for (double& weight : weights) total += weight = std::exp(weight - top);
    for (std::size_t j = 0; j < head.length; ++j)
      for (std::size_t d = 0; d < head.size; ++d) {
        const double part = weights[j] / total * head.value[j * head.stride + d];
        context[d] += part;
        magnitudes[d] += std::abs(part);
      }
  }
};

// `rounding`: of each number that is multiplied. Scores are off by two of them, on both sides of the quotient; weights
// and values by one each; the rest is float32.
void check_attention(Attend attend, Bytes bytes, std::size_t length, std::size_t size, float spread, double rounding) {
  HeadCase it(length, size, spread);
  it.run(attend, bytes);
  const std::string name = "length " + std::to_string(length) + ", size " + std::to_string(size);
  double squares = 0, errors = 0;
  for (std::size_t row = 0; row < length; ++row) {
    const Answer answer(it.head, row);
    const double off = std::expm1(2 * (2 * rounding * answer.scores + truth::sum_error(size, answer.scores)));
    for (std::size_t d = 0; d < size; ++d) {
      const float found = it.context[row * (size + 3) + d];
      require_near(found, answer.context[d],
                   (off + 2 * rounding + truth::sum_error(2 * length, 1) + 4e-7) * answer.magnitudes[d],
                   name + at(row, d));
      squares += answer.context[d] * answer.context[d];
      errors += (found - answer.context[d]) * (found - answer.context[d]);
    }
    for (std::size_t d = size; d < size + 3 && row + 1 < length; ++d)
      require(it.context[row * (size + 3) + d] == kMark, name + " writes beyond" + at(row, d));
  }
  // Roundings mostly cancel, so the whole is far nearer than any bound of one number.
  const double most = 4 * rounding + 1e-5;
  if (spread == 1) require(errors <= squares * most * most, name + " is off on average");
}

void check_attentions(Attend attend, Bytes bytes, double rounding) {
  for (std::size_t length = 1; length <= 130; ++length) check_attention(attend, bytes, length, 32, 1, rounding);
  for (const std::size_t size : {1, 16, 26, 64, 80})
    for (const std::size_t length : {1, 2, 3, 7, 16, 17, 31, 32, 33, 48, 64, 65, 100, 130})
      check_attention(attend, bytes, length, size, 1, rounding);
  for (const std::size_t length : {1, 20, 70}) {
    check_attention(attend, bytes, length, 32, 0, rounding);   // all keys alike
    check_attention(attend, bytes, length, 32, 12, rounding);  // one key takes all
  }
}

void attending(const Kernels& kernels) { check_attentions(kernels.attend, kernels.attention_bytes, 0); }

// Bfloat16 has 8 bits: a half of the last is 2^-9 of the number.
void attending_halves(const Kernels& kernels) {
  const double rounding = kernels.attend_halves == kernels.attend ? 0 : 0x1p-9;
  check_attentions(kernels.attend_halves, kernels.half_attention_bytes, rounding);
}

}  // namespace
}  // namespace tightrope
