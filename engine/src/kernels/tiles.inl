// What a product of bytes is but for its innermost loop: tiles of rows by panels, and what becomes of their sums.
//
// The file that includes this says how many sums its registers hold, and how a tile's sums are made. Sums are integers
// and exact, so how rows and panels are tiled changes no answer.
#pragma once
#include "products.inl"

namespace tightrope {
namespace {

constexpr std::size_t kVectors = kPanel / kLanes;  // of a panel's outputs

template <std::size_t Rows, std::size_t Panels>
using Sums = I[Rows][Panels][kVectors];

// sums = rows [row, row + Rows) of x times panels [panel, panel + Panels). `ahead`: the panels behind them come next.
template <std::size_t Rows, std::size_t Panels>
inline void sum_products(const Codes& x, const Integers& weight, std::size_t row, std::size_t panel, bool ahead,
                         Sums<Rows, Panels>& sums);

template <std::size_t Rows, std::size_t Panels, Activation kind>
inline void tile(const Codes& x, const Integers& weight, std::size_t row, std::size_t panel, bool ahead,
                 const Output& out) {
  Sums<Rows, Panels> sums;
  sum_products<Rows, Panels>(x, weight, row, panel, ahead, sums);
  for (std::size_t p = 0; p < Panels; ++p)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const std::size_t column = (panel + p) * kPanel + v * kLanes;
      const Columns columns(weight, column);
      for (std::size_t r = 0; r < Rows; ++r)
        put<kind>(columns.value(sums[r][p][v], x.scales[row + r]), row + r, column, out);
    }
}

// A tile of `tall` rows, 1 to Most.
template <std::size_t Most, std::size_t Panels, Activation kind>
inline void tile_of(std::size_t tall, const Codes& x, const Integers& weight, std::size_t row, std::size_t panel,
                    bool ahead, const Output& out) {
  if (tall == Most) return tile<Most, Panels, kind>(x, weight, row, panel, ahead, out);
  if constexpr (Most > 1) tile_of<Most - 1, Panels, kind>(tall, x, weight, row, panel, ahead, out);
}

// All rows by some panels. Rows are parted evenly, so that no tile is thin: 9 is 5 + 4, not 6 + 3.
template <std::size_t Most, std::size_t Panels, Activation kind>
inline void tiles(const Codes& x, const Integers& weight, std::size_t panel, bool ahead, const Output& out) {
  const std::size_t parts = (x.rows + Most - 1) / Most;
  for (std::size_t part = 0, row = 0; part < parts; ++part) {
    const std::size_t tall = x.rows * (part + 1) / parts - row;
    tile_of<Most, Panels, kind>(tall, x, weight, row, panel, ahead && part == 0, out);
    row += tall;
  }
}

// Panels [first, last) by tiles of at most Tall rows and Wide panels.
template <std::size_t Tall, std::size_t Wide, Activation kind>
inline void sweep(const Codes& x, const Integers& weight, std::size_t first, std::size_t last, const Output& out) {
  for (; first + Wide <= last; first += Wide) tiles<Tall, Wide, kind>(x, weight, first, first + 2 * Wide <= last, out);
  if constexpr (Wide > 1) sweep<Tall, Wide - 1, kind>(x, weight, first, last, out);
}

}  // namespace
}  // namespace tightrope
