// AVX-512 with VNNI and BF16: integers on 512 bits, attention in bfloat16 with sums in float32.
#define LANES 16
#define UNSIGNED_CODES
#define HALF_TERMS 1
#include "attention_bf16.inl"
#include "avx512_vnni.inl"

namespace tightrope {
namespace {

struct Nothing {
  Nothing() {}
};

template <std::size_t Rows>
inline void multiply_some(const std::uint16_t* x, std::size_t depth, const std::uint16_t* pairs, std::size_t columns,
                          float* out) {
  for (std::size_t c = 0; c < columns; c += kPair) {
    __m512 sums[Rows][2];
    for (std::size_t r = 0; r < Rows; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (std::size_t k = 0; k < depth; k += 2) {
      const std::uint16_t* from = pairs + k * columns + c * 2;
      const auto low = (__m512bh)_mm512_loadu_si512(from), high = (__m512bh)_mm512_loadu_si512(from + 32);
      for (std::size_t r = 0; r < Rows; ++r) {
        std::int32_t two;
        std::memcpy(&two, x + r * depth + k, sizeof two);
        const auto value = (__m512bh)_mm512_set1_epi32(two);
        sums[r][0] = _mm512_dpbf16_ps(sums[r][0], value, low);
        sums[r][1] = _mm512_dpbf16_ps(sums[r][1], value, high);
      }
    }
    for (std::size_t r = 0; r < Rows; ++r) {
      store(out + r * columns + c, (V)sums[r][0]);
      store(out + r * columns + c + kLanes, (V)sums[r][1]);
    }
  }
}

inline void multiply_halves(const std::uint16_t* x, std::size_t rows, std::size_t depth, const std::uint16_t* pairs,
                            std::size_t columns, float* out) {
  std::size_t row = 0;
  for (; row + 6 <= rows; row += 6) multiply_some<6>(x + row * depth, depth, pairs, columns, out + row * columns);
  for (; row + 2 <= rows; row += 2) multiply_some<2>(x + row * depth, depth, pairs, columns, out + row * columns);
  if (row < rows) multiply_some<1>(x + row * depth, depth, pairs, columns, out + row * columns);
}

}  // namespace

const Kernels kAvx512Bf16 = {"avx512-bf16", quantize, prepare, multiply, multiply_floats,
                             normalize, gather, attend, attention_bytes,
                             attend_halves<Nothing>, half_attention_bytes, activate};

}  // namespace tightrope
