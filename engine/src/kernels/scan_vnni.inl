// Scans by vpdpbusd, which multiplies unsigned by signed bytes: rows count from -128, and each sum begins with what that
// adds. The file that includes this defines `Bytes`, `load`, `flipped`, `add` and `total`.
#pragma once

#include "scan.inl"

namespace tightrope {
namespace {

template <std::size_t Rows>
inline void sum_rows(const std::int8_t* rows, std::size_t stride, const std::int8_t* query,
                     std::uint32_t (&sums)[Rows]) {
  Bytes some[Rows] = {};
  for (std::size_t k = 0; k < stride; k += sizeof(Bytes)) {
    const Bytes q = load(query + k);
    for (std::size_t r = 0; r < Rows; ++r) some[r] = add(some[r], flipped(load(rows + r * stride + k)), q);
  }
  for (std::size_t r = 0; r < Rows; ++r) sums[r] = total(some[r]);
}

void products(const std::int8_t* rows, std::size_t stride, std::size_t count, const std::int8_t* query,
              std::int32_t* out) {
  std::int32_t sum = 0;
  for (std::size_t k = 0; k < stride; ++k) sum += query[k];
  sweep_rows(rows, stride, count, query, static_cast<std::uint32_t>(sum) * std::uint32_t(-128), out);
}

}  // namespace
}  // namespace tightrope
