// What happens to single rows: preparing and rounding, normalising, tables, activations.
#pragma once
#include "vectors.inl"

namespace tightrope {
namespace {

// Hadamard ---------------------------------------------------------------------------------------------

// The butterfly between lanes that differ in the bit `Distance`: sums below, differences above.
template <std::size_t Distance, std::size_t... Index>
inline V butterfly(V a, std::index_sequence<Index...>) {
  constexpr V signs = {((Index & Distance) != 0 ? -1.0f : 1.0f)...};
  return a * signs + swapped<Distance>(a);
}

template <std::size_t Distance>
inline V butterfly(V a) {
  return butterfly<Distance>(a, std::make_index_sequence<kLanes>());
}

inline V transformed(V a, std::size_t length) {
  a = length > 1 ? butterfly<1>(a) : a;
  a = length > 2 ? butterfly<2>(a) : a;
  if constexpr (kLanes > 4) a = length > 4 ? butterfly<4 % kLanes>(a) : a;
  if constexpr (kLanes > 8) a = length > 8 ? butterfly<8 % kLanes>(a) : a;
  return a;
}

// The transform of one block of `Count` vectors in registers, not yet divided by the root of its length; `most` takes in
// the magnitudes.
template <std::size_t Count>
inline void transform(float* block, V& most) {
  V v[Count];
  for (std::size_t i = 0; i < Count; ++i) v[i] = transformed(load(block + i * kLanes), kLanes);
  for (std::size_t h = 1; h < Count; h *= 2)
    for (std::size_t i = 0; i < Count; ++i)
      if ((i & h) == 0) {
        const V low = v[i], high = v[i + h];
        v[i] = low + high;
        v[i + h] = low - high;
      }
  for (std::size_t i = 0; i < Count; ++i) store(block + i * kLanes, v[i]);
  V largest_here[Count];
  for (std::size_t i = 0; i < Count; ++i) largest_here[i] = magnitude(v[i]);
  for (std::size_t h = Count / 2; h > 0; h /= 2)
    for (std::size_t i = 0; i < h; ++i) largest_here[i] = larger(largest_here[i], largest_here[i + h]);
  most = larger(most, largest_here[0]);
}

// Any length: blocks shorter than a vector lie side by side in it, and those longer than 16 vectors are put together in
// the end, so that every instruction set takes the stages in one order. Returns the largest magnitude.
inline float transform(float* x, std::size_t width, std::size_t length) {
  V most{};
  if (length < kLanes) {
    for (std::size_t i = 0; i < width; i += kLanes) {
      const V value = transformed(load(x + i), length);
      store(x + i, value);
      most = larger(most, magnitude(value));
    }
    return largest(most);
  }
  const std::size_t count = length / kLanes < 16 ? length / kLanes : 16;
  for (std::size_t start = 0; start < width; start += count * kLanes) {
    switch (count) {
      case 1: transform<1>(x + start, most); break;
      case 2: transform<2>(x + start, most); break;
      case 4: transform<4>(x + start, most); break;
      case 8: transform<8>(x + start, most); break;
      default: transform<16>(x + start, most);
    }
  }
  for (std::size_t h = count * kLanes; h < length; h *= 2) {
    most = V{};
    for (std::size_t start = 0; start < width; start += 2 * h)
      for (std::size_t i = start; i < start + h; i += kLanes) {
        const V low = load(x + i), high = load(x + i + h);
        store(x + i, low + high);
        store(x + i + h, low - high);
        most = larger(most, larger(magnitude(low + high), magnitude(low - high)));
      }
  }
  return largest(most);
}

// One over the root of a power of two, without the library's sqrt.
inline float orthonormal(std::size_t length) {
  float factor = 1;
  for (; length >= 4; length /= 4) factor *= 0.5f;
  return length == 2 ? factor * 0.70710678f : factor;
}

// Preparing and rounding -------------------------------------------------------------------------------

constexpr std::size_t kWidest = 16384;  // features of a row; the loader refuses more

// A row scaled and shifted into `out`, zeros up to a whole vector; returns the largest magnitude of each lane. Four
// maxima side by side: one alone would wait for itself.
template <bool Scaled, bool Shifted>
inline V moved(const float* x, const Preparation& how, float* out) {
  V most[4] = {};
  const auto one = [&](V value, V factor, V offset) {
    if constexpr (Scaled) value = value * factor;
    if constexpr (Shifted) value = value + offset;
    return value;
  };
  std::size_t i = 0;
  for (; i + 4 * kLanes <= how.width; i += 4 * kLanes)
    for (std::size_t part = 0; part < 4; ++part) {
      const std::size_t place = i + part * kLanes;
      const V value = one(load(x + place), Scaled ? load(how.factor + place) : V{},
                          Shifted ? load(how.offset + place) : V{});
      store(out + place, value);
      most[part] = larger(most[part], magnitude(value));
    }
  for (; i < how.width; i += kLanes) {
    const V value = one(at(x, i, how.width), Scaled ? at(how.factor, i, how.width) : V{},
                        Shifted ? at(how.offset, i, how.width) : V{});
    store(out + i, value);
    most[0] = larger(most[0], magnitude(value));
  }
  return larger(larger(most[0], most[1]), larger(most[2], most[3]));
}

// A row prepared into `out`; returns the largest magnitude, not yet divided by the root of the rotation's length.
inline float prepare_row(const float* x, const Preparation& how, float* out) {
  V most;
  if (how.factor && how.offset) most = moved<true, true>(x, how, out);
  else if (how.factor) most = moved<true, false>(x, how, out);
  else if (how.offset) most = moved<false, true>(x, how, out);
  else most = moved<false, false>(x, how, out);
  return how.rotation < 2 ? largest(most) : transform(out, round_up(how.width, kLanes), how.rotation);
}

inline float rotation_scale(const Preparation& how) { return how.rotation < 2 ? 1.0f : orthonormal(how.rotation); }

#ifdef UNSIGNED_CODES  // for instructions that multiply unsigned by signed bytes: codes count from -128
constexpr std::int8_t kZeroCode = -128;
#else
constexpr std::int8_t kZeroCode = 0;
#endif

// Where the code of a feature lies: by rows, or in tiles of 16 rows by 64 features.
inline std::size_t code_place(std::size_t row, std::size_t feature, std::size_t stride) {
#ifdef TILED_CODES
  return row / kRows * kRows * stride + feature / kBlock * kBlock * kRows + row % kRows * kBlock + feature % kBlock;
#else
  return row * stride + feature;
#endif
}

constexpr float kLeast = 1e-12f;  // no range is narrower: a row of zeros has a grid too

void quantize(const float* x, std::size_t x_stride, const Preparation& how, std::size_t first, std::size_t last,
              std::int8_t* codes, float* scales, std::size_t stride) {
  alignas(64) float prepared[kWidest];
  const float rotated = rotation_scale(how);
  for (std::size_t row = first; row < last; ++row) {
    const float found = prepare_row(x + row * x_stride, how, prepared);
    const float most = found * rotated > kLeast ? found : kLeast / rotated;
    const V inverse = all(127.0f / most);
    for (std::size_t i = 0; i < round_up(how.width, kLanes); i += kLanes) {
      const Bytes code = __builtin_convertvector(rounded(load(prepared + i) * inverse), Bytes) ^ kZeroCode;
      std::memcpy(codes + code_place(row, i, stride), &code, sizeof code);
    }
    for (std::size_t i = round_up(how.width, kLanes); i < stride; ++i) codes[code_place(row, i, stride)] = kZeroCode;
    scales[row] = most * rotated / 127.0f;
  }
}

void prepare(const float* x, std::size_t x_stride, const Preparation& how, std::size_t first, std::size_t last,
             bool rounded_too, float* out, std::size_t out_stride) {
  const float rotated = rotation_scale(how);
  for (std::size_t row = first; row < last; ++row) {
    float* to = out + row * out_stride;
    const float found = prepare_row(x + row * x_stride, how, to);
    const float most = found * rotated > kLeast ? found : kLeast / rotated;
    const V inverse = all(127.0f / most), scale = all(most * rotated / 127.0f);
    for (std::size_t i = 0; i < round_up(how.width, kLanes); i += kLanes) {
      const V value = load(to + i);
      store(to + i, rounded_too ? widened(rounded(value * inverse)) * scale : value * rotated);
    }
  }
}

// Normalising ------------------------------------------------------------------------------------------

void normalize(const float* x, std::size_t stride, std::size_t first, std::size_t last, std::size_t width,
               const float* gain, const float* bias, float epsilon, float* out) {
  const float share = 1.0f / static_cast<float>(width);
  const std::size_t whole = width / kPanel * kPanel;
  for (std::size_t row = first; row < last; ++row) {
    const float* from = x + row * stride;
    Sixteen total, squares;
    for (std::size_t i = 0; i < width; i += kLanes) total.add(i, at(from, i, width));
    const V mean = all(total.sum() * share);
    for (std::size_t i = 0; i < whole; i += kLanes) {
      const V away = load(from + i) - mean;
      squares.add(i, away * away);
    }
    float spread = squares.sum();
    for (std::size_t i = whole; i < width; ++i) spread += (from[i] - mean[0]) * (from[i] - mean[0]);
    const V factor = all(1.0f / __builtin_sqrtf(spread * share + epsilon));
    float* to = out + row * stride;
    for (std::size_t i = 0; i < width; i += kLanes)
      store(to + i, (at(from, i, width) - mean) * factor * at(gain, i, width) + at(bias, i, width));
    for (std::size_t i = width; i < round_up(width, kPanel); ++i) to[i] = 0;
  }
}

// Tables -----------------------------------------------------------------------------------------------

// A float16's value: its exponent is moved to where float32 has it, which holds for denormals too. No infinities.
inline V from_half(const std::uint16_t* from) {
  Halves half;
  std::memcpy(&half, from, sizeof half);
  const I bits = __builtin_convertvector(half, I);
  const V size = (V)((bits & 0x7fff) << 13) * 0x1p112f;
  return (V)((I)size | ((bits & 0x8000) << 16));
}

inline float half_value(std::uint16_t bits) {
  const std::uint32_t moved = static_cast<std::uint32_t>(bits & 0x7fff) << 13;
  float size;
  std::memcpy(&size, &moved, sizeof size);
  size *= 0x1p112f;
  return (bits & 0x8000) != 0 ? -size : size;
}

// 32 codes of 4 bits: the low halves of 16 bytes, then the high ones.
inline void unpack4(const std::uint8_t* from, std::int8_t* codes, std::size_t count) {
  for (std::size_t start = 0; start < count; start += 32, from += 16, codes += 32)
    for (std::size_t i = 0; i < 16; ++i) {
      codes[i] = static_cast<std::int8_t>(static_cast<std::int8_t>(from[i] << 4) >> 4);
      codes[i + 16] = static_cast<std::int8_t>(static_cast<std::int8_t>(from[i]) >> 4);
    }
}

// 32 codes of 6 bits: 16 bytes as for 4 bits, then 8 bytes with the upper two bits of codes i, i + 8, i + 16, i + 24.
inline void unpack6(const std::uint8_t* from, std::int8_t* codes, std::size_t count) {
  for (std::size_t start = 0; start < count; start += 32, from += 24, codes += 32) {
    std::uint8_t high[32];
    for (std::size_t i = 0; i < 8; ++i)
      for (std::size_t part = 0; part < 4; ++part)
        high[part * 8 + i] = static_cast<std::uint8_t>((from[16 + i] >> (2 * part)) & 3);
    for (std::size_t i = 0; i < 16; ++i) {
      const std::uint8_t low = static_cast<std::uint8_t>((from[i] & 15) | (high[i] << 4));
      const std::uint8_t top = static_cast<std::uint8_t>((from[i] >> 4) | (high[i + 16] << 4));
      codes[i] = static_cast<std::int8_t>(static_cast<std::int8_t>(low << 2) >> 2);
      codes[i + 16] = static_cast<std::int8_t>(static_cast<std::int8_t>(top << 2) >> 2);
    }
  }
}

inline void gather_codes(const Table& table, std::size_t index, float* out) {
  alignas(64) std::int8_t unpacked[kWidest];
  const std::byte* row = table.rows + index * table.row_bytes;
  const auto* packed = reinterpret_cast<const std::uint8_t*>(row);
  const std::int8_t* codes = reinterpret_cast<const std::int8_t*>(row);
  if (table.element == Element::int4) unpack4(packed, unpacked, table.width);
  if (table.element == Element::int6) unpack6(packed, unpacked, table.width);
  if (table.element != Element::int8) codes = unpacked;
  const std::size_t groups = table.width / table.group;
  for (std::size_t g = 0; g < groups; ++g) {
    const std::size_t place = index * groups + g;
    const float scale = table.half_scales ? half_value(static_cast<const std::uint16_t*>(table.scales)[place])
                                          : static_cast<const float*>(table.scales)[place];
    const int zero = table.zeros ? table.zeros[place] : 0;
    for (std::size_t i = g * table.group; i < (g + 1) * table.group; ++i)
      out[i] += static_cast<float>(codes[i] - zero) * scale;
  }
}

void gather(const Table& table, std::size_t index, float* out) {
  const std::byte* row = table.rows + index * table.row_bytes;
  if (table.element == Element::float32) {
    const auto* from = reinterpret_cast<const float*>(row);
    for (std::size_t i = 0; i < table.width; ++i) out[i] += from[i];
  } else if (table.element == Element::float16) {
    const auto* from = reinterpret_cast<const std::uint16_t*>(row);
    for (std::size_t i = 0; i < table.width; ++i) out[i] += half_value(from[i]);
  } else {
    gather_codes(table, index, out);
  }
}

void activate(float* x, std::size_t count, Activation activation) {
  with_activation(activation, [&]<Activation kind>() {
    for (std::size_t i = 0; i < count; i += kLanes) {
      const V value = activated<kind>(at(x, i, count));
      store_some(x + i, value, count - i);
    }
  });
}

}  // namespace
}  // namespace tightrope
