// Checks of the products, of bytes and of floats.
#pragma once

#include <algorithm>

#include "checks.hpp"
#include "layers.hpp"
#include "truth.hpp"

namespace tightrope {
namespace {

// Products of bytes --------------------------------------------------------------------------------------

enum class Fill { random, largest, signs, paired };  // paired: neighbours add up to 128 at most, and reach it

int code(Fill fill, std::size_t line, std::size_t k, Random& random) {
  switch (fill) {
    case Fill::random: return random.integer(-127, 127);
    case Fill::largest: return line % 2 == 0 ? 127 : -127;
    case Fill::paired: return line % 3 == 0 ? 64 : line % 3 == 1 ? -64 : random.integer(-64, 64);
    default: return random.integer(0, 1) == 0 ? 127 : (k % 3 == 0 ? 0 : -127);
  }
}

// Rows of whole numbers whose largest is 127 are their own codes.
void check_sums(const Kernels& kernels, std::size_t rows, std::size_t in, std::size_t panels, Fill fill) {
  Random random(rows * 1000003 + in * 1009 + panels);
  const std::size_t out = panels * kPanel, stride = out + 3;
  const IntegerLayer layer(in, out, [&](std::size_t o, std::size_t k) { return code(fill, o / 2, k, random); });
  require(layer.paired == (fill == Fill::paired), "the layer is not of the kind that is to be checked");
  Buffer<float> x(rows * in);
  const Fill rows_fill = fill == Fill::paired ? Fill::largest : fill;
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = i % in == 0 ? 127.0f : static_cast<float>(code(rows_fill, i / in, i, random));
  Rows codes(kernels, x.data(), in, rows, {in, nullptr, nullptr, 0});
  for (std::size_t row = 0; row < rows; ++row) require(codes.scales[row] == 1.0f, "quantize: the scale is not 1");
  const Buffer<float> values((rows - 1) * stride + out, kMark);
  kernels.multiply(codes.view(), layer.view(), 0, panels, {values.data(), stride, Activation::identity, nullptr});
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t o = 0; o < out; ++o) {
      std::int32_t sum = 0;
      for (std::size_t k = 0; k < in; ++k) sum += static_cast<int>(x[row * in + k]) * layer.code(o, k);
      require(values[row * stride + o] == static_cast<float>(sum), sizes(rows, in, out) + at(row, o));
    }
    for (std::size_t o = out; o < stride && row + 1 < rows; ++o)
      require(values[row * stride + o] == kMark, sizes(rows, in, out) + " writes beyond" + at(row, o));
  }
}

void integer_sums(const Kernels& kernels) {
  for (std::size_t rows = 1; rows <= 70; ++rows)
    for (std::size_t panels = 1; panels <= 7; ++panels)
      check_sums(kernels, rows, 64, panels, static_cast<Fill>((rows + panels) % 4));
  for (const std::size_t in : {128, 320, 384, 1536, 3072})
    for (const std::size_t rows : {1, 2, 5, 12, 17, 33})
      for (const Fill fill : {Fill::random, Fill::largest, Fill::signs, Fill::paired}) check_sums(kernels, rows, in, 3, fill);
}

// A layer with rows of any values, scales and biases, and all that can become of a product.
struct IntegerCase {
  std::size_t rows, in, out;
  Buffer<float> x, residual;
  IntegerLayer layer;

  IntegerCase(std::size_t rows, std::size_t in, std::size_t panels, Random random)
      : rows(rows), in(in), out(panels * kPanel), x(random.normals(rows * in)), residual(random.normals(rows * out)),
        layer(in, out, [&](std::size_t, std::size_t) { return random.integer(-127, 127); }) {
    for (float& scale : layer.scales) scale = random.uniform(0.5f, 2.0f) / 127 / std::sqrt(static_cast<float>(in));
    for (float& bias : layer.bias) bias = random.normal();
  }
  Rows quantized(const Kernels& kernels, std::size_t first, std::size_t count) const {
    return Rows(kernels, x.data() + first * in, in, count, {in, nullptr, nullptr, 0});
  }
};

// The sums are exact, so what is left is a handful of roundings and the activation's own error.
void check_ends(const Kernels& kernels, const IntegerCase& it, Activation kind, bool residual) {
  const Rows codes = it.quantized(kernels, 0, it.rows);
  const IntegerLayer same_codes(it.in, it.in, [](std::size_t o, std::size_t k) { return o == k; });
  Rows plain_scales = it.quantized(kernels, 0, it.rows);
  for (float& scale : plain_scales.scales) scale = 1;
  const Buffer<float> read(it.rows * it.in), values(it.rows * it.out);
  kernels.multiply(plain_scales.view(), same_codes.view(), 0, it.in / kPanel,
                   {read.data(), it.in, Activation::identity, nullptr});
  if (residual) std::copy(it.residual.begin(), it.residual.end(), values.begin());  // the engine adds in place
  kernels.multiply(codes.view(), it.layer.view(), 0, it.out / kPanel,
                   {values.data(), it.out, kind, residual ? values.data() : nullptr});
  for (std::size_t row = 0; row < it.rows; ++row)
    for (std::size_t o = 0; o < it.out; ++o) {
      double sum = 0;
      for (std::size_t k = 0; k < it.in; ++k)
        sum += static_cast<double>(read[row * it.in + k]) * it.layer.code(o, k);
      const double product = sum * codes.scales[row] * it.layer.scales[o], bias = it.layer.bias[o];
      const double added = residual ? it.residual[row * it.out + o] : 0;
      const double wanted = truth::activated(kind, product + bias);
      require_near(values[row * it.out + o], wanted + added,
                   truth::activation_error(kind, product + bias) +
                       0x1p-21 * (std::abs(product) + std::abs(bias) + std::abs(added)),
                   sizes(it.rows, it.in, it.out) + at(row, o));
    }
}

void integer_ends(const Kernels& kernels) {
  for (const std::size_t rows : {1, 7, 30})
    for (int kind = 0; kind <= 5; ++kind) {
      const IntegerCase it(rows, 384, 5, Random(rows));
      check_ends(kernels, it, static_cast<Activation>(kind), false);
    }
  check_ends(kernels, IntegerCase(13, 320, 4, Random(3)), Activation::identity, true);
}

void integer_neighbours(const Kernels& kernels) {
  for (const std::size_t rows : {1, 2, 3, 5, 12, 16, 31, 70})
    for (const std::size_t panels : {1, 2, 3, 7})
      for (const Activation kind : {Activation::identity, Activation::gelu}) {
        const IntegerCase it(rows, 128, panels, Random(rows + panels));
        const Rows codes = it.quantized(kernels, 0, rows);
        const Buffer<float> together(rows * it.out), alone(it.out), parts(rows * it.out, kMark);
        const float* residual = kind == Activation::identity ? it.residual.data() : nullptr;
        kernels.multiply(codes.view(), it.layer.view(), 0, panels, {together.data(), it.out, kind, residual});
        for (std::size_t row = 0; row < rows; ++row) {
          kernels.multiply(it.quantized(kernels, row, 1).view(), it.layer.view(), 0, panels,
                           {alone.data(), it.out, kind, residual ? residual + row * it.out : nullptr});
          require(same(alone.data(), together.data() + row * it.out, it.out),
                  sizes(rows, 128, it.out) + ": row " + std::to_string(row) + " alone differs");
        }
        for (std::size_t first = 0, wide = 1; first < panels; first += wide, ++wide)
          kernels.multiply(codes.view(), it.layer.view(), first, std::min(first + wide, panels),
                           {parts.data(), it.out, kind, residual});
        require(same(parts.data(), together.data(), rows * it.out), sizes(rows, 128, it.out) + ": parts differ");
      }
}

// Products of floats -------------------------------------------------------------------------------------

void check_floats(const Kernels& kernels, const FloatLayer& layer, std::size_t rows, Activation kind, bool residual) {
  Random random(rows);
  const std::size_t in = layer.in, out = layer.out, panels = out / kPanel, stride = in + 5;
  const Buffer<float> x = random.normals((rows - 1) * stride + in), added = random.normals(rows * out);
  const Buffer<float> values(rows * out), alone(out), parts(rows * out, kMark);
  const float* extra = residual ? added.data() : nullptr;
  kernels.multiply_floats(x.data(), stride, rows, layer.view(), 0, panels, {values.data(), out, kind, extra});
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t o = 0; o < out; ++o) {
      double sum = layer.bias[o], magnitudes = std::abs(sum);
      for (std::size_t k = 0; k < in; ++k) {
        sum += x[row * stride + k] * layer.weight(o, k);
        magnitudes += std::abs(x[row * stride + k] * layer.weight(o, k));
      }
      const double more = residual ? added[row * out + o] : 0;
      require_near(values[row * out + o], truth::activated(kind, sum) + more,
                   truth::activation_error(kind, sum) + 1.2 * truth::sum_error(in, magnitudes) +
                       0x1p-22 * std::abs(more),
                   layer.name + " " + sizes(rows, in, out) + at(row, o));
    }
    kernels.multiply_floats(x.data() + row * stride, stride, 1, layer.view(), 0, panels,
                            {alone.data(), out, kind, residual ? extra + row * out : nullptr});
    require(same(alone.data(), values.data() + row * out, out), layer.name + ": a row alone differs");
  }
  for (std::size_t panel = 0; panel < panels; ++panel)
    kernels.multiply_floats(x.data(), stride, rows, layer.view(), panel, panel + 1, {parts.data(), out, kind, extra});
  require(same(parts.data(), values.data(), rows * out), layer.name + ": parts differ");
}

void float_products(const Kernels& kernels) {
  for (const Element element : {Element::float32, Element::float16, Element::int8, Element::int4})
    for (const bool zeros : {false, true}) {
      if (zeros && (element == Element::float32 || element == Element::float16)) continue;
      for (const std::size_t rows : {1, 3, 4, 8, 13, 70})
        for (const std::size_t in : {26, 312}) {
          const FloatLayer layer(element, in, in == 26 ? 13 : 8, 2, zeros);
          check_floats(kernels, layer, rows, rows % 2 == 0 ? Activation::gelu : Activation::identity, rows % 2 != 0);
        }
      check_floats(kernels, FloatLayer(element, 128, 32, 7, zeros), 5, Activation::tanh, false);
    }
}

}  // namespace
}  // namespace tightrope
