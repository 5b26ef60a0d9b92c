// AVX-VNNI: vpdpbusd on 256 bits.
#include <immintrin.h>

#include <cstdint>

namespace tightrope {
namespace {

using Bytes = __m256i;

inline Bytes load(const std::int8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
inline Bytes flipped(Bytes bytes) { return _mm256_xor_si256(bytes, _mm256_set1_epi8(-128)); }
inline Bytes add(Bytes sums, Bytes row, Bytes query) { return _mm256_dpbusd_avx_epi32(sums, row, query); }

inline std::uint32_t total(Bytes sums) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1))));
}

}  // namespace
}  // namespace tightrope

#include "scan_vnni.inl"

namespace tightrope {

const ScanKernels kScanAvxVnni = {"avx-vnni", products};

}  // namespace tightrope
