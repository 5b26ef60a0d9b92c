// Products of bytes by vpdpbusd on 512 bits: unsigned codes of x by signed codes of the weights.
//
// A tile of 6 rows by 64 outputs keeps 24 sums in registers: more than the ten that two ports and a latency of five
// cycles need, so that a late load delays nobody. 32 inputs are eight steps written out, because gcc 12 copies sums
// about where it unrolls a loop with a remainder (that took 3 to 7 % of the rate, and a quarter with 24 sums). Weights are
// not asked for ahead: the processor's own prefetching keeps up, and the instructions took 5 % of the rate at 12 rows.
#pragma once

#include <immintrin.h>

#include "tiles.inl"

namespace tightrope {
namespace {

constexpr std::size_t kWritten = 32;  // inputs of one turn of the loop; divides kBlock

template <std::size_t Rows, std::size_t Panels>
inline void sum_products(const Codes& x, const Integers& weight, std::size_t row, std::size_t panel, bool,
                         Sums<Rows, Panels>& sums) {
  const std::size_t size = weight.in * kPanel;
  const std::int8_t* codes = weight.panels + panel * size;
  const std::int8_t* rows = x.values + row * x.stride;
  for (std::size_t p = 0; p < Panels; ++p) {
    I start;
    std::memcpy(&start, weight.sums + (panel + p) * kPanel, sizeof start);
    for (std::size_t r = 0; r < Rows; ++r) sums[r][p][0] = start * -128;  // x counts from -128
  }
  for (std::size_t block = 0; block < weight.in; block += kWritten)
#pragma GCC unroll 8
    for (std::size_t k = block; k < block + kWritten; k += 4) {
      __m512i w[Panels];
      for (std::size_t p = 0; p < Panels; ++p) w[p] = _mm512_load_si512(codes + p * size + k * kPanel);
      for (std::size_t r = 0; r < Rows; ++r) {
        std::int32_t four;
        std::memcpy(&four, rows + r * x.stride + k, sizeof four);
        const __m512i value = _mm512_set1_epi32(four);
        for (std::size_t p = 0; p < Panels; ++p)
          sums[r][p][0] = (I)_mm512_dpbusd_epi32((__m512i)sums[r][p][0], value, w[p]);
      }
    }
}

void multiply(const Codes& x, const Integers& weight, std::size_t first_panel, std::size_t last_panel,
              const Output& out) {
  fused(out, x.rows, first_panel, last_panel, [&]<Activation kind>() {
    sweep<6, 4, kind>(x, weight, first_panel, last_panel, out);
  });
}

}  // namespace
}  // namespace tightrope
