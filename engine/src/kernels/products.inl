// Products in float arithmetic, and what every product ends with: scale, bias, activation, residual.
#pragma once
#include "rows.inl"

namespace tightrope {
namespace {

// A vector of one row's outputs. A residual is added to products that nothing is applied to: behind an activation, gcc 12
// fuses the sum with the activation's last product in one tile and not in another, and answers would depend on tiles.
template <Activation kind>
inline void put(V value, std::size_t row, std::size_t column, const Output& out) {
  const std::size_t place = row * out.stride + column;
  value = activated<kind>(value);
  if constexpr (kind == Activation::identity)
    if (out.residual) value = value + load(out.residual + place);
  store(out.values + place, value);
}

// What turns the integer sums of some neighbouring outputs into values.
struct Columns {
  V scale, bias;
  Columns(const Integers& weight, std::size_t column)
      : scale(load(weight.scales + column)), bias(load(weight.bias + column)) {}
  V value(I sums, float row_scale) const { return widened(sums) * row_scale * scale + bias; }
};

// Calls `act` with the activation as a constant. Only the usual one is part of the product, so that its code is made
// twice and not six times; any other goes over the outputs afterwards.
template <class Act>
inline void fused(const Output& out, std::size_t rows, std::size_t first_panel, std::size_t last_panel, Act act) {
  if (out.activation == Activation::gelu) return act.template operator()<Activation::gelu>();
  act.template operator()<Activation::identity>();
  if (out.activation == Activation::identity) return;
  for (std::size_t row = 0; row < rows; ++row)
    activate(out.values + row * out.stride + first_panel * kPanel, (last_panel - first_panel) * kPanel, out.activation);
}

constexpr std::size_t kSlice = 128;  // inputs whose weights are decoded at once: 8 KB

// Inputs [first, last) of a panel as float32, [last - first][16].
inline void decode(const Floats& weight, std::size_t panel, std::size_t first, std::size_t last, float* out) {
  const std::size_t start = (panel * weight.in + first) * kPanel, count = (last - first) * kPanel;
  if (weight.element == Element::float32) {
    std::memcpy(out, static_cast<const float*>(weight.panels) + start, count * sizeof(float));
    return;
  }
  if (weight.element == Element::float16) {
    const auto* from = static_cast<const std::uint16_t*>(weight.panels) + start;
    for (std::size_t i = 0; i < count; i += kLanes) store(out + i, from_half(from + i));
    return;
  }
  const auto* bytes = static_cast<const std::int8_t*>(weight.panels);
  const std::size_t groups = weight.in / weight.group;
  for (std::size_t k = first; k < last; ++k) {
    alignas(16) std::int8_t codes[kPanel];
    const std::size_t place = (panel * weight.in + k) * kPanel;
    if (weight.element == Element::int8) {
      std::memcpy(codes, bytes + place, kPanel);
    } else {
      for (std::size_t i = 0; i < kPanel / 2; ++i) {  // outputs 0 to 7 are the low halves of 8 bytes
        const std::int8_t both = bytes[place / 2 + i];
        codes[i] = static_cast<std::int8_t>(static_cast<std::int8_t>(both << 4) >> 4);
        codes[i + kPanel / 2] = static_cast<std::int8_t>(both >> 4);
      }
    }
    const std::size_t scale = (panel * groups + k / weight.group) * kPanel;
    for (std::size_t i = 0; i < kPanel; i += kLanes) {
      Bytes code;
      std::memcpy(&code, codes + i, sizeof code);
      V value = widened(__builtin_convertvector(code, I));
      if (weight.zeros) value = value - load(weight.zeros + scale + i);
      store(out + (k - first) * kPanel + i, value * load(weight.scales + scale + i));
    }
  }
}

// sums [rows, 16] += x [rows, first to last) x slice [last - first, 16].
template <std::size_t Rows>
inline void add_slice(const float* x, std::size_t x_stride, std::size_t first, std::size_t last, const float* slice,
                      float* sums) {
  constexpr std::size_t kVectors = kPanel / kLanes;
  V total[Rows][kVectors];
  for (std::size_t r = 0; r < Rows; ++r)
    for (std::size_t v = 0; v < kVectors; ++v) total[r][v] = load(sums + r * kPanel + v * kLanes);
  for (std::size_t k = first; k < last; ++k)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const V weight = load(slice + (k - first) * kPanel + v * kLanes);
      for (std::size_t r = 0; r < Rows; ++r) total[r][v] = total[r][v] + x[r * x_stride + k] * weight;
    }
  for (std::size_t r = 0; r < Rows; ++r)
    for (std::size_t v = 0; v < kVectors; ++v) store(sums + r * kPanel + v * kLanes, total[r][v]);
}

constexpr std::size_t kTall = 64;  // rows whose sums are kept while the slices of a panel go by: 4 KB
constexpr std::size_t kAtOnce = kLanes >= 16 ? 8 : 4;

inline void multiply_panel(const float* x, std::size_t x_stride, std::size_t rows, const Floats& weight,
                           std::size_t panel, float* sums) {
  alignas(64) float slice[kSlice * kPanel];
  for (std::size_t first = 0; first < weight.in; first += kSlice) {
    const std::size_t last = first + kSlice < weight.in ? first + kSlice : weight.in;
    decode(weight, panel, first, last, slice);
    std::size_t row = 0;
    for (; row + kAtOnce <= rows; row += kAtOnce)
      add_slice<kAtOnce>(x + row * x_stride, x_stride, first, last, slice, sums + row * kPanel);
    for (; row < rows; ++row) add_slice<1>(x + row * x_stride, x_stride, first, last, slice, sums + row * kPanel);
  }
}

void multiply_floats(const float* x, std::size_t x_stride, std::size_t rows, const Floats& weight,
                     std::size_t first_panel, std::size_t last_panel, const Output& out) {
  fused(out, rows, first_panel, last_panel, [&]<Activation kind>() {
    alignas(64) float sums[kTall * kPanel];
    for (std::size_t panel = first_panel; panel < last_panel; ++panel)
      for (std::size_t start = 0; start < rows; start += kTall) {
        const std::size_t tall = rows - start < kTall ? rows - start : kTall;
        std::memset(sums, 0, tall * kPanel * sizeof(float));
        multiply_panel(x + start * x_stride, x_stride, tall, weight, panel, sums);
        for (std::size_t row = 0; row < tall; ++row)
          for (std::size_t v = 0; v < kPanel; v += kLanes)
            put<kind>(load(sums + row * kPanel + v) + load(weight.bias + panel * kPanel + v), start + row,
                      panel * kPanel + v, out);
      }
  });
}

}  // namespace
}  // namespace tightrope
