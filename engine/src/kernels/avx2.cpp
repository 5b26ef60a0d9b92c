// AVX2: bytes by vpmaddubsw, exactly.
//
// The instruction multiplies unsigned by signed bytes and adds pairs in 16 bits. Codes lie within 127 on both sides, so
// magnitudes of the weights times codes of x that take the weights' signs make pairs of at most 32,258: none saturates,
// and weights keep all 8 bits.
#define LANES 8
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
  const __m256i ones = _mm256_set1_epi16(1);
  for (std::size_t r = 0; r < Rows; ++r)
    for (std::size_t p = 0; p < Panels; ++p)
      for (std::size_t v = 0; v < kVectors; ++v) sums[r][p][v] = I{};
  for (std::size_t k = 0; k < weight.in; k += 4)
    for (std::size_t p = 0; p < Panels; ++p)
      for (std::size_t v = 0; v < kVectors; ++v) {
        const __m256i w = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + p * size + k * kPanel + v * 32));
        const __m256i magnitude = _mm256_abs_epi8(w);
        for (std::size_t r = 0; r < Rows; ++r) {
          std::int32_t four;
          std::memcpy(&four, rows + r * x.stride + k, sizeof four);
          const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(_mm256_set1_epi32(four), w));
          sums[r][p][v] = sums[r][p][v] + (I)_mm256_madd_epi16(pairs, ones);
        }
      }
}

void multiply(const Codes& x, const Integers& weight, std::size_t first_panel, std::size_t last_panel,
              const Output& out) {
  fused(out, x.rows, first_panel, last_panel, [&]<Activation kind>() {
    sweep<4, 1, kind>(x, weight, first_panel, last_panel, out);
  });
}

}  // namespace

const Kernels kAvx2 = {"avx2",         quantize, prepare, multiply,              multiply_floats,
                       normalize,      gather,   attend_exactly,                 exact_attention_bytes,
                       attend_exactly, exact_attention_bytes, activate};

}  // namespace tightrope
