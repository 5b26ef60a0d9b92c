// The plain definition of a scan, which every other instruction set is held against.
#include "scan.hpp"

namespace tightrope {
namespace {

void products(const std::int8_t* rows, std::size_t stride, std::size_t count, const std::int8_t* query,
              std::int32_t* out) {
  for (std::size_t row = 0; row < count; ++row) {
    std::int32_t sum = 0;
    for (std::size_t k = 0; k < stride; ++k) sum += rows[row * stride + k] * query[k];
    out[row] = sum;
  }
}

}  // namespace

const ScanKernels kScanPlain = {"plain", products};

}  // namespace tightrope
