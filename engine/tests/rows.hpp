// Checks of what happens to single rows: preparing, rounding, normalising, tables, activations.
#pragma once

#include <algorithm>

#include "checks.hpp"
#include "layers.hpp"
#include "truth.hpp"

namespace tightrope {
namespace {

struct RowsCase {
  std::size_t rows, width;
  Buffer<float> x, factor, offset;
  Preparation how;

  RowsCase(std::size_t rows, std::size_t width, std::size_t rotation, int moved)
      : rows(rows), width(width), x(rows * width), factor(width), offset(width) {
    Random random(width + rotation);
    for (float& value : x) value = random.normal() * (random.integer(0, 40) == 0 ? 30.0f : 1.0f);
    if (rows > 1) std::fill(x.begin(), x.begin() + width, 0.0f);
    for (float& value : factor) value = random.uniform(0.2f, 3.0f);
    for (float& value : offset) value = random.normal();
    how = {width, moved & 1 ? factor.data() : nullptr, moved & 2 ? offset.data() : nullptr, rotation};
  }
  std::vector<double> prepared(std::size_t row) const { return truth::prepared(x.data() + row * width, how); }
};

template <class Check>
void for_rows(Check check) {
  for (int moved = 0; moved < 4; ++moved) {
    for (const std::size_t width : {1, 3, 26, 64, 312, 384, 1530}) check(RowsCase(3, width, 0, moved));
    for (std::size_t rotation = 2; rotation <= 1024; rotation *= 2) {
      check(RowsCase(2, rotation, rotation, moved));
      check(RowsCase(2, 3 * rotation, rotation, moved));
    }
  }
  check(RowsCase(3, 26, 2, 3));
  check(RowsCase(3, 312, 8, 3));
}

std::string named(const RowsCase& it) {
  return "width " + std::to_string(it.width) + ", rotation " + std::to_string(it.how.rotation);
}

void check_prepared(const Kernels& kernels, const RowsCase& it) {
  const std::size_t stride = round_up(it.width, kPanel);
  const Buffer<float> exact(it.rows * stride), rounded(it.rows * stride);
  kernels.prepare(it.x.data(), it.width, it.how, 0, it.rows, false, exact.data(), stride);
  kernels.prepare(it.x.data(), it.width, it.how, 0, it.rows, true, rounded.data(), stride);
  for (std::size_t row = 0; row < it.rows; ++row) {
    const std::vector<double> wanted = it.prepared(row);
    const double error = truth::preparation_error(it.x.data() + row * it.width, it.how);
    const double step = std::max(truth::largest(wanted), 1e-12) / 127;
    for (std::size_t i = 0; i < it.width; ++i) {
      require_near(exact[row * stride + i], wanted[i], error, named(it) + at(row, i));
      require_near(rounded[row * stride + i], wanted[i], 0.5001 * step + 2 * error, named(it) + at(row, i));
    }
  }
}

// Codes lie as each instruction set likes, so they are read by multiplying them with ones on a diagonal.
void check_quantized(const Kernels& kernels, const RowsCase& it) {
  Rows codes(kernels, it.x.data(), it.width, it.rows, it.how);
  const IntegerLayer diagonal(codes.stride, codes.stride, [](std::size_t o, std::size_t k) { return o == k; });
  const std::vector<float> scales(codes.scales.begin(), codes.scales.end());
  std::fill(codes.scales.begin(), codes.scales.end(), 1.0f);
  const Buffer<float> read(it.rows * codes.stride);
  kernels.multiply(codes.view(), diagonal.view(), 0, codes.stride / kPanel,
                   {read.data(), codes.stride, Activation::identity, nullptr});
  for (std::size_t row = 0; row < it.rows; ++row) {
    const std::vector<double> wanted = it.prepared(row);
    const double error = truth::preparation_error(it.x.data() + row * it.width, it.how);
    const double step = std::max(truth::largest(wanted), 1e-12) / 127;
    require_near(scales[row], step, error / 127 + 0x1p-22 * step, named(it) + ": scale of row " + std::to_string(row));
    for (std::size_t i = 0; i < codes.stride; ++i)
      require_near(read[row * codes.stride + i], i < it.width ? wanted[i] / step : 0.0,
                   i < it.width ? 0.5001 + 2 * error / step : 0.0, named(it) + ": code" + at(row, i));
  }
}

void preparing(const Kernels& kernels) {
  for_rows([&](const RowsCase& it) { check_prepared(kernels, it); });
}

void quantizing(const Kernels& kernels) {
  for_rows([&](const RowsCase& it) { check_quantized(kernels, it); });
}

// Normalising --------------------------------------------------------------------------------------------

// Means and spreads are sums over the row, and what they are off by is divided by the spread's root.
void check_normalized(const Kernels& kernels, std::size_t width, float middle, float spread) {
  constexpr std::size_t kLines = 3;
  Random random(width);
  const std::size_t stride = round_up(width, kPanel);
  const Buffer<float> x(kLines * stride, middle), out(kLines * stride, kMark);
  const Buffer<float> gain = random.normals(width), bias = random.normals(width);
  for (std::size_t row = 0; row + 1 < kLines; ++row)  // the last stays constant
    for (std::size_t i = 0; i < width; ++i) x[row * stride + i] = middle + spread * random.normal();
  kernels.normalize(x.data(), stride, 0, kLines, width, gain.data(), bias.data(), 1e-12f, out.data());
  for (std::size_t row = 0; row < kLines; ++row) {
    const truth::Normal normal(x.data() + row * stride, width, 1e-12);
    const double off = truth::sum_error(width, normal.largest) * normal.factor;
    for (std::size_t i = 0; i < stride; ++i) {
      const std::string where = "width " + std::to_string(width) + at(row, i);
      if (i >= width) require(out[row * stride + i] == 0, where + ": padding is not zero");
      else if (off < 0.1)  // a row without spread is all rounding: see below
        require_near(out[row * stride + i], normal.value(x[row * stride + i]) * gain[i] + bias[i],
                     (off + 2 * off * std::abs(normal.value(x[row * stride + i]))) * std::abs(gain[i]) +
                         0x1p-22 * std::abs(bias[i]), where);
      else require(std::isfinite(out[row * stride + i]), where + " is not finite");
    }
  }
}

void normalizing(const Kernels& kernels) {
  for (const std::size_t width : {1, 5, 16, 26, 312, 384, 768, 1530}) {
    check_normalized(kernels, width, 0.0f, 1.0f);
    check_normalized(kernels, width, 3.0f, 0.5f);
    check_normalized(kernels, width, 0.0f, 1e4f);
    check_normalized(kernels, width, 0.0f, 1e-4f);
  }
}

// Tables -------------------------------------------------------------------------------------------------

void check_table(const Kernels& kernels, const CodedTable& table) {
  Random random(5);
  for (std::size_t index = 0; index < table.rows; ++index) {
    const Buffer<float> before = random.normals(table.width), out(table.width);
    std::copy(before.begin(), before.end(), out.begin());
    kernels.gather(table.view(), index, out.data());
    for (std::size_t i = 0; i < table.width; ++i) {  // a product and a sum, fused or not
      const double value = table.value(index, i);
      require_near(out[i], before[i] + value, 0x1p-23 * (std::abs(before[i]) + 2 * std::abs(value)),
                   table.name + at(index, i));
    }
  }
}

void gathering(const Kernels& kernels) {
  for (const Element element : {Element::float32, Element::float16, Element::int8, Element::int6, Element::int4})
    for (const bool half : {false, true})
      for (const bool zeros : {false, true}) {
        check_table(kernels, CodedTable(element, 384, 32, half, zeros));
        check_table(kernels, CodedTable(element, 96, 96, half, zeros));
        check_table(kernels, CodedTable(element, 64, 4, half, zeros));
        if (element != Element::int6 && element != Element::int4)
          check_table(kernels, CodedTable(element, 312, 26, half, zeros));
      }
}

// Activations --------------------------------------------------------------------------------------------

void activating(const Kernels& kernels) {
  for (int kind = 0; kind <= 5; ++kind)
    for (const std::size_t count : {1, 7, 16, 31, 4001}) {
      const Buffer<float> x(count);
      for (std::size_t i = 0; i < count; ++i) x[i] = (static_cast<float>(i % 401) - 200.0f) * 0.05f;
      if (count > 4000) x[0] = 1000, x[1] = -1000, x[2] = 0, x[3] = 88.8f, x[4] = -88.8f, x[5] = 1e-30f;
      const std::vector<float> before(x.begin(), x.end());
      kernels.activate(x.data(), count, static_cast<Activation>(kind));
      for (std::size_t i = 0; i < count; ++i)
        require_near(x[i], truth::activated(static_cast<Activation>(kind), before[i]),
                     truth::activation_error(static_cast<Activation>(kind), before[i]),
                     "activation " + std::to_string(kind) + " of " + std::to_string(before[i]));
    }
}

}  // namespace
}  // namespace tightrope
