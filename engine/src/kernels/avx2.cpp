// AVX2: bytes by vpmaddubsw, exactly.
//
// The instruction multiplies unsigned by signed bytes and adds pairs in 16 bits, where it saturates. Where neighbouring
// weights keep to 128 together (`paired`), 255 times that does not. Otherwise magnitudes of the weights are multiplied by
// codes of x that take the weights' signs, both within 127: that fits for any weights, for one more instruction in four.
#define LANES 8
#define UNSIGNED_CODES
#include <immintrin.h>

#include "attention.inl"
#include "tiles.inl"

namespace tightrope {
namespace {

inline I pairs_added(__m256i pairs) { return (I)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

template <std::size_t Rows, std::size_t Panels, class Multiply>
inline void add_products(const Codes& x, const Integers& weight, std::size_t row, std::size_t panel,
                         Sums<Rows, Panels>& sums, Multiply multiply) {
  const std::size_t size = weight.in * kPanel;
  const std::int8_t* codes = weight.panels + panel * size;
  const std::int8_t* rows = x.values + row * x.stride;
  for (std::size_t k = 0; k < weight.in; k += 4)
    for (std::size_t p = 0; p < Panels; ++p)
      for (std::size_t v = 0; v < kVectors; ++v) {
        const __m256i w = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + p * size + k * kPanel + v * 32));
        for (std::size_t r = 0; r < Rows; ++r) {
          std::int32_t four;
          std::memcpy(&four, rows + r * x.stride + k, sizeof four);
          sums[r][p][v] = sums[r][p][v] + pairs_added(multiply(_mm256_set1_epi32(four), w));
        }
      }
}

template <std::size_t Rows, std::size_t Panels>
inline void sum_products(const Codes& x, const Integers& weight, std::size_t row, std::size_t panel, bool,
                         Sums<Rows, Panels>& sums) {
  for (std::size_t p = 0; p < Panels; ++p)
    for (std::size_t v = 0; v < kVectors; ++v) {
      I start{};
      if (weight.paired) std::memcpy(&start, weight.sums + (panel + p) * kPanel + v * kLanes, sizeof start);
      for (std::size_t r = 0; r < Rows; ++r) sums[r][p][v] = start * -128;  // x counts from -128
    }
  if (weight.paired)
    return add_products(x, weight, row, panel, sums,
                        [](__m256i four, __m256i w) { return _mm256_maddubs_epi16(four, w); });
  add_products(x, weight, row, panel, sums, [](__m256i four, __m256i w) {
    const __m256i counted_from_zero = _mm256_xor_si256(four, _mm256_set1_epi8(-128));
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(counted_from_zero, w));
  });
}

void multiply(const Codes& x, const Integers& weight, std::size_t first_panel, std::size_t last_panel,
              const Output& out) {
  fused(out, x.rows, first_panel, last_panel, [&]<Activation kind>() {
    sweep<4, 1, kind>(x, weight, first_panel, last_panel, out);
  });
}

}  // namespace

const Kernels kAvx2 = {"avx2", quantize, prepare, multiply, multiply_floats,
                       normalize, gather, attend, attention_bytes,
                       attend, attention_bytes, activate};

}  // namespace tightrope
