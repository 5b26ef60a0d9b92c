// AVX2: bytes are widened to 16 bits and multiplied in pairs (vpmaddwd), which no byte overflows.
#include <immintrin.h>

#include "scan.inl"

namespace tightrope {
namespace {

inline __m256i widened(const std::int8_t* from) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

inline std::uint32_t total(__m256i sums) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1))));
}

template <std::size_t Rows>
inline void sum_rows(const std::int8_t* rows, std::size_t stride, const std::int8_t* query,
                     std::uint32_t (&sums)[Rows]) {
  __m256i some[Rows];
  for (std::size_t r = 0; r < Rows; ++r) some[r] = _mm256_setzero_si256();
  for (std::size_t k = 0; k < stride; k += 16) {
    const __m256i q = widened(query + k);
    for (std::size_t r = 0; r < Rows; ++r)
      some[r] = _mm256_add_epi32(some[r], _mm256_madd_epi16(widened(rows + r * stride + k), q));
  }
  for (std::size_t r = 0; r < Rows; ++r) sums[r] = total(some[r]);
}

void products(const std::int8_t* rows, std::size_t stride, std::size_t count, const std::int8_t* query,
              std::int32_t* out) {
  sweep_rows(rows, stride, count, query, 0, out);
}

}  // namespace

const ScanKernels kScanAvx2 = {"avx2", products};

}  // namespace tightrope
