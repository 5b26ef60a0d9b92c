// AMX: products of bytes and of bfloat16 by tiles of 16 rows, a matrix at a time.
//
// A tile of weights is what a panel holds for 64 inputs, as it lies, and rows are rounded into tiles at once, so that
// every load of a tile is one kilobyte in a row. The codes' buffer reaches to a multiple of 16 rows; what the rows beyond
// the last give is not kept.
#define LANES 16
#define TILED_CODES
#define HALF_TERMS 3
#include "attention_bf16.inl"
#include "products.inl"

namespace tightrope {
namespace {

constexpr std::size_t kTileBytes = 1024;

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Tile registers in use by the calling thread, all of full size; given back at the end of a call, because the system
// saves them at every switch between threads as long as they hold anything.
class Tiles {
 public:
  Tiles() {
    const TileConfig config;
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// Integers -----------------------------------------------------------------------------------------------

inline void prefetch(const std::int8_t* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(from + i), _MM_HINT_T1);
}

// `ahead`: bytes from these weights to those that are needed next, or zero. They are asked for bit by bit on the way.
template <std::size_t Rows, std::size_t Panels>
inline void products(const Codes& x, const Integers& weight, std::size_t row, std::size_t panel, std::size_t ahead,
                     std::int32_t* sums) {
  const std::size_t size = weight.in * kPanel;
  const std::int8_t* rows = x.values + row * x.stride;
  const std::int8_t* codes = weight.panels + panel * size;
  _tile_zero(0);
  if constexpr (Panels > 1) _tile_zero(1);
  if constexpr (Rows > 1) _tile_zero(2);
  if constexpr (Rows > 1 && Panels > 1) _tile_zero(3);
  for (std::size_t k = 0; k < weight.in; k += kBlock) {
    const std::int8_t* w = codes + k * kPanel;
    if (ahead)
      for (std::size_t p = 0; p < Panels; ++p) prefetch(w + p * size + ahead, kTileBytes);
    _tile_loadd(4, rows + k * kRows, 64);
    _tile_loadd(6, w, 64);
    _tile_dpbssd(0, 4, 6);
    if constexpr (Panels > 1) {
      _tile_loadd(7, w + size, 64);
      _tile_dpbssd(1, 4, 7);
    }
    if constexpr (Rows > 1) {
      _tile_loadd(5, rows + kRows * x.stride + k * kRows, 64);
      _tile_dpbssd(2, 5, 6);
    }
    if constexpr (Rows > 1 && Panels > 1) _tile_dpbssd(3, 5, 7);
  }
  _tile_stored(0, sums, 64);
  if constexpr (Panels > 1) _tile_stored(1, sums + 256, 64);
  if constexpr (Rows > 1) _tile_stored(2, sums + 512, 64);
  if constexpr (Rows > 1 && Panels > 1) _tile_stored(3, sums + 768, 64);
}

// Sums [2 tiles of rows][2 panels][16][16] to outputs.
template <Activation kind>
inline void finish_tiles(const std::int32_t* sums, const Codes& x, const Integers& weight, std::size_t row,
                         std::size_t panel, std::size_t panels, const Output& out) {
  const std::size_t last = x.rows - row < 32 ? x.rows - row : 32;
  for (std::size_t p = 0; p < panels; ++p) {
    const Columns columns(weight, (panel + p) * kPanel);
    for (std::size_t r = 0; r < last; ++r) {
      I some;
      std::memcpy(&some, sums + ((r / 16 * 2 + p) * 16 + r % 16) * kPanel, sizeof some);
      put<kind>(columns.value(some, x.scales[row + r]), row + r, (panel + p) * kPanel, out);
    }
  }
}

template <std::size_t Panels, Activation kind>
inline void multiply_panels(const Codes& x, const Integers& weight, std::size_t panel, std::size_t ahead,
                            const Output& out) {
  alignas(64) std::int32_t sums[4 * 256];
  for (std::size_t row = 0; row < x.rows; row += 32) {
    if (x.rows - row > 16) products<2, Panels>(x, weight, row, panel, row == 0 ? ahead : 0, sums);
    else products<1, Panels>(x, weight, row, panel, row == 0 ? ahead : 0, sums);
    finish_tiles<kind>(sums, x, weight, row, panel, Panels, out);
  }
}

void multiply(const Codes& x, const Integers& weight, std::size_t first_panel, std::size_t last_panel,
              const Output& out) {
  const Tiles tiles;
  fused(out, x.rows, first_panel, last_panel, [&]<Activation kind>() {
    std::size_t panel = first_panel;
    for (; panel + 2 <= last_panel; panel += 2)
      multiply_panels<2, kind>(x, weight, panel, panel + 4 <= last_panel ? 2 * weight.in * kPanel : 0, out);
    if (panel < last_panel) multiply_panels<1, kind>(x, weight, panel, 0, out);
  });
}

// Attention ----------------------------------------------------------------------------------------------

// Whole tiles of 16 rows: those beyond the last cost nothing, and nobody reads them.
template <bool Two>
inline void multiply_tiles(const std::uint16_t* x, std::size_t depth, const std::uint16_t* pairs, std::size_t columns,
                           float* out) {
  for (std::size_t c = 0; c < columns; c += kPair) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (Two) _tile_zero(2);
    if constexpr (Two) _tile_zero(3);
    for (std::size_t k = 0; k < depth; k += kPair) {
      _tile_loadd(6, pairs + (k / 2 * columns + c) * 2, columns * 4);
      _tile_loadd(7, pairs + (k / 2 * columns + c + 16) * 2, columns * 4);
      _tile_loadd(4, x + k, depth * 2);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (Two) {
        _tile_loadd(5, x + 16 * depth + k, depth * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, out + c, columns * 4);
    _tile_stored(1, out + c + 16, columns * 4);
    if constexpr (Two) _tile_stored(2, out + 16 * columns + c, columns * 4);
    if constexpr (Two) _tile_stored(3, out + 16 * columns + c + 16, columns * 4);
  }
}

inline void multiply_halves(const std::uint16_t* x, std::size_t rows, std::size_t depth, const std::uint16_t* pairs,
                            std::size_t columns, float* out) {
  if (rows > 16) multiply_tiles<true>(x, depth, pairs, columns, out);
  else multiply_tiles<false>(x, depth, pairs, columns, out);
}

}  // namespace

const Kernels kAmx = {"amx", quantize, prepare, multiply, multiply_floats,
                      normalize, gather, attend, attention_bytes,
                      attend_halves<Tiles>, half_attention_bytes, activate};

}  // namespace tightrope
