// What the checks have in common: how they fail.
#pragma once

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace tightrope {
namespace {

constexpr float kMark = 12345.678f;

void require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

void require_near(float found, double wanted, double most, const std::string& where) {
  require(std::abs(static_cast<double>(found) - wanted) <= most,  // refuses nan too
          where + ": " + std::to_string(found) + " for " + std::to_string(wanted) + ", " + std::to_string(most) +
              " allowed");
}

std::string at(std::size_t row, std::size_t column) {
  return " at row " + std::to_string(row) + ", column " + std::to_string(column);
}

std::string sizes(std::size_t rows, std::size_t in, std::size_t out) {
  return std::to_string(rows) + " x " + std::to_string(in) + " x " + std::to_string(out);
}

bool same(const float* a, const float* b, std::size_t count) { return std::memcmp(a, b, count * sizeof(float)) == 0; }

}  // namespace
}  // namespace tightrope
