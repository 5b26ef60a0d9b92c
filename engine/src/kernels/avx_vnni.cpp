// AVX-VNNI: vpdpbusd on 256 bits, unsigned codes of x by signed codes of the weights.
#define LANES 8
#define UNSIGNED_CODES
#include <immintrin.h>

#include "attention.inl"
#include "tiles.inl"

namespace tightrope {
namespace {

template <std::size_t Rows, std::size_t Panels>
inline void sum_products(const Codes& x, const Integers& weight, std::size_t row, std::size_t panel, bool,
                         Sums<Rows, Panels>& sums) {
  const std::size_t size = weight.in * kPanel;
  const std::int8_t* codes = weight.panels + panel * size;
  const std::int8_t* rows = x.values + row * x.stride;
  for (std::size_t p = 0; p < Panels; ++p)
    for (std::size_t v = 0; v < kVectors; ++v) {
      I start;
      std::memcpy(&start, weight.sums + (panel + p) * kPanel + v * kLanes, sizeof start);
      for (std::size_t r = 0; r < Rows; ++r) sums[r][p][v] = start * -128;  // x counts from -128
    }
  for (std::size_t k = 0; k < weight.in; k += 4) {
    __m256i w[Panels][kVectors];
    for (std::size_t p = 0; p < Panels; ++p)
      for (std::size_t v = 0; v < kVectors; ++v)
        w[p][v] = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + p * size + k * kPanel + v * 32));
    for (std::size_t r = 0; r < Rows; ++r) {
      std::int32_t four;
      std::memcpy(&four, rows + r * x.stride + k, sizeof four);
      const __m256i value = _mm256_set1_epi32(four);
      for (std::size_t p = 0; p < Panels; ++p)
        for (std::size_t v = 0; v < kVectors; ++v)
          sums[r][p][v] = (I)_mm256_dpbusd_avx_epi32((__m256i)sums[r][p][v], value, w[p][v]);
    }
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

const Kernels kAvxVnni = {"avx-vnni", quantize, prepare, multiply, multiply_floats,
                          normalize, gather, attend, attention_bytes,
                          attend, attention_bytes, activate};

}  // namespace tightrope
