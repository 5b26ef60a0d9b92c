// The plain reference: what every other instruction set is held against. No intrinsics; any C++20 compiler makes it.
#define LANES 4
#include "attention.inl"
#include "products.inl"

namespace tightrope {
namespace {

void multiply(const Codes& x, const Integers& weight, std::size_t first_panel, std::size_t last_panel,
              const Output& out) {
  fused(out, x.rows, first_panel, last_panel, [&]<Activation kind>() {
    for (std::size_t panel = first_panel; panel < last_panel; ++panel)
      for (std::size_t row = 0; row < x.rows; ++row) {
        std::int32_t sums[kPanel] = {};
        const std::int8_t* codes = weight.panels + panel * weight.in * kPanel;
        for (std::size_t k = 0; k < weight.in; ++k)
          for (std::size_t i = 0; i < kPanel; ++i)
            sums[i] += x.values[row * x.stride + k] * codes[(k / 4 * kPanel + i) * 4 + k % 4];
        for (std::size_t i = 0; i < kPanel; i += kLanes) {
          I some;
          std::memcpy(&some, sums + i, sizeof some);
          const std::size_t column = panel * kPanel + i;
          put<kind>(Columns(weight, column).value(some, x.scales[row]), row, column, out);
        }
      }
  });
}

}  // namespace

const Kernels kPlain = {"plain", quantize, prepare, multiply, multiply_floats,
                        normalize, gather, attend, attention_bytes,
                        attend, attention_bytes, activate};

}  // namespace tightrope
