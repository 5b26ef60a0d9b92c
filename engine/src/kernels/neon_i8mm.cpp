// NEON with matrix products of bytes: smmla multiplies two rows of 8 inputs by two outputs of 8 inputs.
//
// 24 sums and what they are made of take 30 of the 32 registers, unless gcc 12 moves loads ahead before it allocates
// registers: then sums go through memory.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns")
#endif
#define LANES 4
#include <arm_neon.h>

#include "attention.inl"
#include "tiles.inl"

namespace tightrope {
namespace {

constexpr std::size_t kPairs = kPanel / 2;  // of a panel's outputs

// Eight bytes from each of two rows.
inline int8x16_t both(const std::int8_t* upper, const std::int8_t* lower) {
  return vcombine_s8(vld1_s8(upper), vld1_s8(lower));
}

inline int64x2_t halves(I a) { return vreinterpretq_s64_s32((int32x4_t)a); }

// Sums of two rows by two outputs, each [row][output], to vectors of four outputs by row. Without a second row there is
// none to fill.
template <std::size_t Rows>
inline void part(const I (&squares)[kPairs], std::size_t row, I (&upper)[kVectors], I (&lower)[kVectors]) {
  for (std::size_t v = 0; v < kVectors; ++v) {
    const int64x2_t left = halves(squares[2 * v]), right = halves(squares[2 * v + 1]);
    upper[v] = (I)vreinterpretq_s32_s64(vzip1q_s64(left, right));
    if (row + 1 < Rows) lower[v] = (I)vreinterpretq_s32_s64(vzip2q_s64(left, right));
  }
}

template <std::size_t Rows, std::size_t Panels>
inline void sum_products(const Codes& x, const Integers& weight, std::size_t row, std::size_t panel, bool,
                         Sums<Rows, Panels>& sums) {
  static_assert(Panels == 1);
  constexpr std::size_t kTwos = (Rows + 1) / 2;  // an odd last row is multiplied twice
  const std::int8_t* codes = weight.panels + panel * weight.in * kPanel;
  const std::int8_t* rows = x.values + row * x.stride;
  I squares[kTwos][kPairs] = {};
  for (std::size_t k = 0; k < weight.in; k += 8) {
    int8x16_t some[kTwos];
    for (std::size_t t = 0; t < kTwos; ++t) {
      const std::size_t lower = 2 * t + 1 < Rows ? 2 * t + 1 : 2 * t;
      some[t] = both(rows + 2 * t * x.stride + k, rows + lower * x.stride + k);
    }
    for (std::size_t v = 0; v < kVectors; ++v) {  // four outputs: inputs 0 to 3 of each, then 4 to 7
      const std::int8_t* from = codes + k * kPanel + v * 16;
      const int32x4_t low = vreinterpretq_s32_s8(vld1q_s8(from)), high = vreinterpretq_s32_s8(vld1q_s8(from + 64));
      const int8x16_t left = vreinterpretq_s8_s32(vzip1q_s32(low, high));
      const int8x16_t right = vreinterpretq_s8_s32(vzip2q_s32(low, high));
      for (std::size_t t = 0; t < kTwos; ++t) {
        I(&to)[kPairs] = squares[t];
        to[2 * v] = (I)vmmlaq_s32((int32x4_t)to[2 * v], some[t], left);
        to[2 * v + 1] = (I)vmmlaq_s32((int32x4_t)to[2 * v + 1], some[t], right);
      }
    }
  }
  for (std::size_t t = 0; t < kTwos; ++t)
    part<Rows>(squares[t], 2 * t, sums[2 * t][0], sums[2 * t + 1 < Rows ? 2 * t + 1 : 2 * t][0]);
}

void multiply(const Codes& x, const Integers& weight, std::size_t first_panel, std::size_t last_panel,
              const Output& out) {
  fused(out, x.rows, first_panel, last_panel, [&]<Activation kind>() {
    sweep<6, 1, kind>(x, weight, first_panel, last_panel, out);
  });
}

}  // namespace

const Kernels kNeonI8mm = {"neon-i8mm", quantize, prepare, multiply, multiply_floats,
                           normalize, gather, attend, attention_bytes,
                           attend, attention_bytes, activate};

}  // namespace tightrope
