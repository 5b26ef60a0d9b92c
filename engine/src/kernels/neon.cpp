// NEON as every 64-bit ARM has it: bytes by smull and smlal, pairs of their products by sadalp.
//
// Two products of codes within 127 make at most 32,258, which 16 bits hold: so every lane takes two products before
// it is widened. Weights are sorted so that a lane's two products, and the lane beside it, belong to the same output.
// Tiles are 3 rows high: with 4 or 5, gcc 12 has sums go through memory.
#define LANES 4
#include <arm_neon.h>

#include "attention.inl"
#include "tiles.inl"

namespace tightrope {
namespace {

inline int8x16_t two_inputs(const std::int8_t* from) {
  std::int16_t two;
  std::memcpy(&two, from, sizeof two);
  return vreinterpretq_s8_s16(vdupq_n_s16(two));
}

template <std::size_t Rows, std::size_t Panels>
inline void sum_products(const Codes& x, const Integers& weight, std::size_t row, std::size_t panel, bool,
                         Sums<Rows, Panels>& sums) {
  const std::size_t size = weight.in * kPanel;
  const std::int8_t* codes = weight.panels + panel * size;
  const std::int8_t* rows = x.values + row * x.stride;
  for (std::size_t r = 0; r < Rows; ++r)
    for (std::size_t p = 0; p < Panels; ++p)
      for (std::size_t v = 0; v < kVectors; ++v) sums[r][p][v] = I{};
  for (std::size_t k = 0; k < weight.in; k += 4)
    for (std::size_t p = 0; p < Panels; ++p)
      for (std::size_t half = 0; half < 2; ++half) {  // 8 outputs
        const std::int8_t* from = codes + p * size + k * kPanel + half * 32;
        const int16x8_t low = vreinterpretq_s16_s8(vld1q_s8(from)), high = vreinterpretq_s16_s8(vld1q_s8(from + 16));
        const int8x16_t first = vreinterpretq_s8_s16(vuzp1q_s16(low, high));  // inputs k and k + 1 of all 8
        const int8x16_t second = vreinterpretq_s8_s16(vuzp2q_s16(low, high));
        for (std::size_t r = 0; r < Rows; ++r) {
          const int8x16_t a = two_inputs(rows + r * x.stride + k), b = two_inputs(rows + r * x.stride + k + 2);
          I(&to)[kVectors] = sums[r][p];
          int16x8_t pairs = vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(first)), vget_low_s8(b), vget_low_s8(second));
          to[2 * half] = (I)vpadalq_s16((int32x4_t)to[2 * half], pairs);
          pairs = vmlal_high_s8(vmull_high_s8(a, first), b, second);
          to[2 * half + 1] = (I)vpadalq_s16((int32x4_t)to[2 * half + 1], pairs);
        }
      }
}

void multiply(const Codes& x, const Integers& weight, std::size_t first_panel, std::size_t last_panel,
              const Output& out) {
  fused(out, x.rows, first_panel, last_panel, [&]<Activation kind>() {
    sweep<3, 1, kind>(x, weight, first_panel, last_panel, out);
  });
}

}  // namespace

const Kernels kNeon = {"neon", quantize, prepare, multiply, multiply_floats,
                       normalize, gather, attend, attention_bytes,
                       attend, attention_bytes, activate};

}  // namespace tightrope
