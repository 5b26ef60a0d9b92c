// The sweep that every instruction set's scan has in common: four rows share each load of the query.
//
// The file that includes this defines `sum_rows<Rows>(rows, stride, query, sums)`.
#pragma once

#include "scan.hpp"

namespace tightrope {
namespace {

template <std::size_t Rows>
inline void sum_rows(const std::int8_t* rows, std::size_t stride, const std::int8_t* query, std::uint32_t (&sums)[Rows]);

// `start` is what each sum begins with; it wraps around as sums do, so that it may undo what they have too much.
inline void sweep_rows(const std::int8_t* rows, std::size_t stride, std::size_t count, const std::int8_t* query,
                       std::uint32_t start, std::int32_t* out) {
  constexpr std::size_t kTogether = 4;
  std::size_t row = 0;
  for (; row + kTogether <= count; row += kTogether) {
    std::uint32_t sums[kTogether];
    sum_rows<kTogether>(rows + row * stride, stride, query, sums);
    for (std::size_t i = 0; i < kTogether; ++i) out[row + i] = static_cast<std::int32_t>(start + sums[i]);
  }
  for (; row < count; ++row) {
    std::uint32_t sums[1];
    sum_rows<1>(rows + row * stride, stride, query, sums);
    out[row] = static_cast<std::int32_t>(start + sums[0]);
  }
}

}  // namespace
}  // namespace tightrope
