// NEON as every 64-bit ARM has it: products of 16 bits (smull), added to sums of 32 in pairs (sadalp).
#include <arm_neon.h>

#include "scan.inl"

namespace tightrope {
namespace {

template <std::size_t Rows>
inline void sum_rows(const std::int8_t* rows, std::size_t stride, const std::int8_t* query,
                     std::uint32_t (&sums)[Rows]) {
  int32x4_t some[Rows];
  for (std::size_t r = 0; r < Rows; ++r) some[r] = vdupq_n_s32(0);
  for (std::size_t k = 0; k < stride; k += 16) {
    const int8x16_t q = vld1q_s8(query + k);
    for (std::size_t r = 0; r < Rows; ++r) {
      const int8x16_t x = vld1q_s8(rows + r * stride + k);
      some[r] = vpadalq_s16(some[r], vmull_s8(vget_low_s8(x), vget_low_s8(q)));
      some[r] = vpadalq_s16(some[r], vmull_high_s8(x, q));
    }
  }
  for (std::size_t r = 0; r < Rows; ++r) sums[r] = static_cast<std::uint32_t>(vaddvq_s32(some[r]));
}

void products(const std::int8_t* rows, std::size_t stride, std::size_t count, const std::int8_t* query,
              std::int32_t* out) {
  sweep_rows(rows, stride, count, query, 0, out);
}

}  // namespace

const ScanKernels kScanNeon = {"neon", products};

}  // namespace tightrope
