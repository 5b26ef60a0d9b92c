// NEON with the dot product of ARMv8.2: sdot, four products a lane.
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

// Adds inputs 4 * Lane to 4 * Lane + 3 of the 16 that `x` holds by rows and `codes` by panel.
template <int Lane, std::size_t Rows, std::size_t Panels>
inline void add_products(const int8x16_t (&x)[Rows], const std::int8_t* codes, std::size_t size,
                         Sums<Rows, Panels>& sums) {
  for (std::size_t p = 0; p < Panels; ++p)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const int8x16_t w = vld1q_s8(codes + p * size + (Lane * kVectors + v) * 16);
      for (std::size_t r = 0; r < Rows; ++r)
        sums[r][p][v] = (I)vdotq_laneq_s32((int32x4_t)sums[r][p][v], w, x[r], Lane);
    }
}

template <std::size_t Rows, std::size_t Panels>
inline void sum_products(const Codes& x, const Integers& weight, std::size_t row, std::size_t panel, bool,
                         Sums<Rows, Panels>& sums) {
  const std::size_t size = weight.in * kPanel;
  for (std::size_t r = 0; r < Rows; ++r)
    for (std::size_t p = 0; p < Panels; ++p)
      for (std::size_t v = 0; v < kVectors; ++v) sums[r][p][v] = I{};
  for (std::size_t k = 0; k < weight.in; k += 16) {
    const std::int8_t* codes = weight.panels + panel * size + k * kPanel;
    int8x16_t some[Rows];
    for (std::size_t r = 0; r < Rows; ++r) some[r] = vld1q_s8(x.values + (row + r) * x.stride + k);
    add_products<0, Rows, Panels>(some, codes, size, sums);
    add_products<1, Rows, Panels>(some, codes, size, sums);
    add_products<2, Rows, Panels>(some, codes, size, sums);
    add_products<3, Rows, Panels>(some, codes, size, sums);
  }
}

void multiply(const Codes& x, const Integers& weight, std::size_t first_panel, std::size_t last_panel,
              const Output& out) {
  fused(out, x.rows, first_panel, last_panel, [&]<Activation kind>() {
    if (x.rows <= 3) sweep<3, 2, kind>(x, weight, first_panel, last_panel, out);
    else sweep<6, 1, kind>(x, weight, first_panel, last_panel, out);
  });
}

}  // namespace

const Kernels kNeonDotProduct = {"neon-dotprod", quantize, prepare, multiply, multiply_floats,
                                 normalize, gather, attend, attention_bytes,
                                 attend, attention_bytes, activate};

}  // namespace tightrope
