// What one instruction set must offer to scan an index: products of rows of bytes with a query.
//
// Sums of bytes are exact integers, so every instruction set gives the same bits. Unlike the kernels of a model, which
// know their codes, any byte is right here, -128 too: rows come from a disk.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tightrope {

// Rows and query are padded with zeros to this many bytes, or a multiple.
constexpr std::size_t kScanStep = 64;
// Longer rows could overflow a sum of 32 bits.
constexpr std::size_t kMostScanned = 65536;

struct ScanKernels {
  const char* isa;
  // out[i] = the product of row i, at rows + i * stride, with the query; `stride` bytes of each count.
  void (*products)(const std::int8_t* rows, std::size_t stride, std::size_t count, const std::int8_t* query,
                   std::int32_t* out);
};

// What this build has; null where the compiler's target has none of it.
extern const ScanKernels kScanPlain;
#if defined(__x86_64__)
extern const ScanKernels kScanAvx2, kScanAvxVnni, kScanAvx512Vnni;
#elif defined(__aarch64__)
extern const ScanKernels kScanNeon, kScanNeonDotProduct;
#endif

}  // namespace tightrope
