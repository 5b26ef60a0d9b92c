// The exact scan of an index: the rows of bytes most like a query, by one pass over all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/scan.hpp"

namespace tightrope {

// Rows of `stride` codes each. A row's score is its product with the query, as a float32, times its scale.
struct Rows {
  const std::int8_t* codes = nullptr;
  std::size_t stride = 0;
  std::size_t count = 0;
  const float* scales = nullptr;
  const std::uint8_t* allowed = nullptr;  // a byte for each row, zero for one that is left out; null for all
};

// The scan for the instruction set of this name: its own, or that of the nearest one which has what a scan needs.
const ScanKernels& scan_for(std::string_view isa);

// Writes the places and scores of the best rows, the best first and of equal ones the one before; says how many there
// are: at most as many as there is room for. A row whose score is not a number is left out.
std::size_t scan(const ScanKernels& kernels, const Rows& rows, const std::int8_t* query, std::span<std::int64_t> places,
                 std::span<float> scores);

}  // namespace tightrope
