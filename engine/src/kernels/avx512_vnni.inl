// Products of bytes by vpdpbusd on 512 bits: unsigned codes of x by signed codes of the weights.
//
// A tile of 4 rows by 48 outputs keeps 12 sums in registers: enough to hide the instruction's latency on two ports, and
// few enough that no compiler moves them about (24 sums ran at little more than half the rate).
#pragma once

#include <immintrin.h>

#include "products.inl"

namespace tightrope {
namespace {

template <std::size_t Rows, std::size_t Panels, Activation kind>
inline void tile(const Codes& x, const Integers& weight, std::size_t row, std::size_t panel, bool prefetch,
                 const Output& out) {
  const std::size_t size = weight.in * kPanel;
  const std::int8_t* codes = weight.panels + panel * size;
  const std::int8_t* rows = x.values + row * x.stride;
  __m512i sums[Rows][Panels];
  for (std::size_t p = 0; p < Panels; ++p) {
    I start;
    std::memcpy(&start, weight.sums + (panel + p) * kPanel, sizeof start);
    for (std::size_t r = 0; r < Rows; ++r) sums[r][p] = (__m512i)(start * -128);  // x counts from -128
  }
#pragma GCC unroll 4
  for (std::size_t k = 0; k < weight.in; k += 4) {
    __m512i w[Panels];
    for (std::size_t p = 0; p < Panels; ++p) {
      w[p] = _mm512_load_si512(codes + p * size + k * kPanel);
      if (prefetch) _mm_prefetch(reinterpret_cast<const char*>(codes + (Panels + p) * size + k * kPanel), _MM_HINT_T1);
    }
    for (std::size_t r = 0; r < Rows; ++r) {
      std::int32_t four;
      std::memcpy(&four, rows + r * x.stride + k, sizeof four);
      const __m512i value = _mm512_set1_epi32(four);
      for (std::size_t p = 0; p < Panels; ++p) sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], value, w[p]);
    }
  }
  for (std::size_t p = 0; p < Panels; ++p) {
    const Columns columns(weight, (panel + p) * kPanel);
    for (std::size_t r = 0; r < Rows; ++r)
      put<kind>(columns.value((I)sums[r][p], x.scales[row + r]), row + r, (panel + p) * kPanel, out);
  }
}

// Rows in parts of 4, or of 3 at the end, so that no tile is thin: 5 is 3 + 2, 9 is 3 + 3 + 3.
template <std::size_t Panels, Activation kind>
inline void tiles(const Codes& x, const Integers& weight, std::size_t panel, bool prefetch, const Output& out) {
  const std::size_t parts = (x.rows + 3) / 4;
  for (std::size_t part = 0, row = 0; part < parts; ++part) {
    const std::size_t tall = x.rows * (part + 1) / parts - row;
    const bool first = prefetch && part == 0;
    switch (tall) {
      case 1: tile<1, Panels, kind>(x, weight, row, panel, first, out); break;
      case 2: tile<2, Panels, kind>(x, weight, row, panel, first, out); break;
      case 3: tile<3, Panels, kind>(x, weight, row, panel, first, out); break;
      default: tile<4, Panels, kind>(x, weight, row, panel, first, out);
    }
    row += tall;
  }
}

void multiply(const Codes& x, const Integers& weight, std::size_t first_panel, std::size_t last_panel,
              const Output& out) {
  fused(out, x.rows, first_panel, last_panel, [&]<Activation kind>() {
    std::size_t panel = first_panel;
    for (; panel + 3 <= last_panel; panel += 3) tiles<3, kind>(x, weight, panel, panel + 6 <= last_panel, out);
    if (panel + 2 <= last_panel) {
      tiles<2, kind>(x, weight, panel, false, out);
      panel += 2;
    }
    if (panel < last_panel) tiles<1, kind>(x, weight, panel, false, out);
  });
}

}  // namespace
}  // namespace tightrope
