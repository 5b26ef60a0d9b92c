// What the kernels compute, as its definition says, in double precision; and how far float32 may be from it.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/kernels.hpp"

namespace tightrope::truth {

// A sum of some products is off by at most one rounding for each of what their magnitudes add up to, in any order.
inline double sum_error(std::size_t count, double magnitudes) {
  return static_cast<double>(count + 8) * 0x1p-24 * magnitudes;
}

inline double activated(Activation kind, double x) {
  switch (kind) {
    case Activation::gelu: return x * 0.5 * std::erfc(-x * std::sqrt(0.5));
    case Activation::gelu_tanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::relu: return std::max(x, 0.0);
    case Activation::tanh: return std::tanh(x);
    case Activation::sigmoid: return 1 / (1 + std::exp(-x));
    default: return x;
  }
}

// Polynomials as they were fitted (vectors.inl); none of the functions is steeper than 1.13.
inline double activation_error(Activation kind, double x) {
  switch (kind) {
    case Activation::gelu: return 4e-5 + 1e-6 * std::abs(x);
    case Activation::gelu_tanh: return 1e-6 + 1e-6 * std::abs(x);
    case Activation::tanh:
    case Activation::sigmoid: return 1e-6;
    default: return 0;
  }
}

inline double half(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -size : size;
}

inline double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double value : values) most = std::max(most, std::abs(value));
  return most;
}

// Scaled, shifted, and each block multiplied by the orthonormal Hadamard matrix of its length.
inline std::vector<double> prepared(const float* x, const Preparation& how) {
  std::vector<double> row(x, x + how.width);
  for (std::size_t i = 0; i < how.width; ++i)
    row[i] = row[i] * (how.factor ? how.factor[i] : 1) + (how.offset ? how.offset[i] : 0);
  for (std::size_t h = 1; h < how.rotation; h *= 2)
    for (std::size_t i = 0; i < how.width; ++i)
      if ((i & h) == 0) {
        const double low = row[i], high = row[i + h];
        row[i] = (low + high) * std::sqrt(0.5);
        row[i + h] = (low - high) * std::sqrt(0.5);
      }
  return row;
}

// A rounding or two for each step, of values that are never larger than the row is long.
inline double preparation_error(const float* x, const Preparation& how) {
  double squares = 0;
  for (std::size_t i = 0; i < how.width; ++i) {
    const double scaled = x[i] * (how.factor ? how.factor[i] : 1.0), moved = how.offset ? how.offset[i] : 0.0;
    const double size = std::abs(scaled) + std::abs(moved);
    squares += size * size;
  }
  const double steps = how.rotation < 2 ? 0 : std::log2(static_cast<double>(how.rotation));
  return (steps + 3) * 0x1p-23 * std::sqrt(squares);
}

// A row's mean and spread.
struct Normal {
  double mean = 0, factor = 0, largest = 0;

  Normal(const float* x, std::size_t width, double epsilon) {
    for (std::size_t i = 0; i < width; ++i) {
      mean += x[i] / static_cast<double>(width);
      largest = std::max(largest, std::abs(static_cast<double>(x[i])));
    }
    double squares = 0;
    for (std::size_t i = 0; i < width; ++i) squares += (x[i] - mean) * (x[i] - mean);
    factor = 1 / std::sqrt(squares / static_cast<double>(width) + epsilon);
  }
  double value(float x) const { return (x - mean) * factor; }
};

}  // namespace tightrope::truth
