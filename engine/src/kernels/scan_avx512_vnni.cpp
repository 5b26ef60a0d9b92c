// AVX-512 with VNNI: vpdpbusd on 512 bits.
#include <immintrin.h>

#include <cstdint>

namespace tightrope {
namespace {

using Bytes = __m512i;

inline Bytes load(const std::int8_t* from) { return _mm512_loadu_si512(from); }
inline Bytes flipped(Bytes bytes) { return _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)); }
inline Bytes add(Bytes sums, Bytes row, Bytes query) { return _mm512_dpbusd_epi32(sums, row, query); }
inline std::uint32_t total(Bytes sums) { return static_cast<std::uint32_t>(_mm512_reduce_add_epi32(sums)); }

}  // namespace
}  // namespace tightrope

#include "scan_vnni.inl"

namespace tightrope {

const ScanKernels kScanAvx512Vnni = {"avx512-vnni", products};

}  // namespace tightrope
