// Layers, tables and rows made up for the checks and the micro-benchmark of the kernels.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "truth.hpp"

namespace tightrope {

// Memory on a boundary of 64 bytes and not a byte longer, so that AddressSanitizer sees the first one beyond.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t count, T value = {})
      : values_(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{64}))), count_(count) {
    for (T& each : *this) each = value;
  }
  ~Buffer() { ::operator delete(values_, std::align_val_t{64}); }
  Buffer(Buffer&& other) noexcept : values_(std::exchange(other.values_, nullptr)), count_(other.count_) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return values_; }
  T* begin() const { return values_; }
  T* end() const { return values_ + count_; }
  std::size_t size() const { return count_; }
  T& operator[](std::size_t index) const { return values_[index]; }

 private:
  T* values_;
  std::size_t count_;
};

// The same numbers on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}

  std::uint32_t bits() {
    state_ = state_ * 6364136223846793005 + 1442695040888963407;
    return static_cast<std::uint32_t>(state_ >> 32);
  }
  int integer(int low, int high) {
    return low + static_cast<int>(bits() % static_cast<std::uint32_t>(high - low + 1));
  }
  float uniform(float low, float high) { return low + (high - low) * static_cast<float>(bits() >> 8) * 0x1p-24f; }
  float normal() {  // near enough: twelve uniform ones
    float sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform(0, 1);
    return sum;
  }
  Buffer<float> normals(std::size_t count) {
    Buffer<float> values(count);
    for (float& value : values) value = normal();
    return values;
  }

 private:
  std::uint64_t state_;
};

// A layer on integers, whose codes are `code(output, input)`.
struct IntegerLayer {
  Buffer<std::int8_t> panels;
  Buffer<float> scales, bias;
  Buffer<std::int32_t> sums;
  std::size_t in, out;
  bool paired = true;

  template <class Code>
  IntegerLayer(std::size_t in, std::size_t out, Code code)
      : panels(in * out), scales(out, 1.0f), bias(out), sums(out), in(in), out(out) {
    for (std::size_t o = 0; o < out; ++o)
      for (std::size_t k = 0; k < in; ++k) {
        const std::int8_t value = static_cast<std::int8_t>(code(o, k));
        panels[(o / kPanel * (in / 4) + k / 4) * kPanel * 4 + o % kPanel * 4 + k % 4] = value;
        sums[o] += value;
        if (k % 2 == 1) paired = paired && std::abs(this->code(o, k - 1) + value) <= 128;
      }
  }
  int code(std::size_t o, std::size_t k) const {
    return panels[(o / kPanel * (in / 4) + k / 4) * kPanel * 4 + o % kPanel * 4 + k % 4];
  }
  Integers view() const { return {panels.data(), scales.data(), bias.data(), sums.data(), in, out, paired}; }
};

// Rows as one instruction set writes them. `scales` may be changed afterwards.
struct Rows {
  Buffer<std::int8_t> codes;
  Buffer<float> scales;
  std::size_t rows, stride;

  Rows(const Kernels& kernels, const float* x, std::size_t x_stride, std::size_t rows, const Preparation& how)
      : codes(round_up(rows, kRows) * round_up(how.width, kBlock)), scales(rows), rows(rows),
        stride(round_up(how.width, kBlock)) {
    kernels.quantize(x, x_stride, how, 0, rows, codes.data(), scales.data(), stride);
  }
  Codes view() const { return {codes.data(), scales.data(), rows, stride}; }
};

// Elements of fewer bits than numbers have, and what they stand for.
struct Packed {
  std::vector<std::uint8_t> bytes;

  explicit Packed(std::size_t size) : bytes(size) {}
  template <class T>
  void put(std::size_t index, T value) { std::memcpy(bytes.data() + index * sizeof value, &value, sizeof value); }
  void put_nibble(std::size_t byte, bool high, int code) {
    bytes[byte] = static_cast<std::uint8_t>(bytes[byte] | (code & 15) << (high ? 4 : 0));
  }
};

inline std::uint16_t half_bits(Random& random) {  // of 2^-24 to 4, denormals too
  return static_cast<std::uint16_t>(random.integer(0, 1) << 15 | random.integer(0, 16) << 10 | random.integer(0, 1023));
}

// A layer in float arithmetic.
struct FloatLayer {
  std::string name;
  Element element;
  std::size_t in, out, group;
  std::vector<double> weights;  // [out, in]
  Packed packed;
  Buffer<float> scales, zeros, bias;
  bool has_zeros;

  FloatLayer(Element element, std::size_t in, std::size_t group, std::size_t panels, bool has_zeros)
      : name("element " + std::to_string(static_cast<int>(element))), element(element), in(in), out(panels * kPanel),
        group(group), weights(in * out), packed(in * out * 4), scales(in / group * out), zeros(in / group * out),
        bias(Random(in).normals(out)), has_zeros(has_zeros) {
    Random random(in + out);
    for (float& scale : scales) scale = random.uniform(0.01f, 0.1f);
    for (float& zero : zeros) zero = has_zeros ? static_cast<float>(random.integer(-8, 7)) : 0.0f;
    for (std::size_t panel = 0; panel < panels; ++panel)
      for (std::size_t k = 0; k < in; ++k)
        for (std::size_t i = 0; i < kPanel; ++i) weights[(panel * kPanel + i) * in + k] = put(panel, k, i, random);
    packed.bytes.resize(element == Element::float32 ? in * out * 4 : element == Element::float16 ? in * out * 2
                        : element == Element::int8  ? in * out : in * out / 2);
    packed.bytes.shrink_to_fit();
  }
  double weight(std::size_t o, std::size_t k) const { return weights[o * in + k]; }
  Floats view() const {
    const float* those = has_zeros ? zeros.data() : nullptr;
    return {packed.bytes.data(), element, scales.data(), those, group, bias.data(), in, out};
  }

 private:
  double put(std::size_t panel, std::size_t k, std::size_t i, Random& random) {
    const std::size_t place = (panel * in + k) * kPanel + i;
    if (element == Element::float32) {
      const float value = random.normal();
      packed.put(place, value);
      return value;
    }
    if (element == Element::float16) {
      const std::uint16_t bits = half_bits(random);
      packed.put(place, bits);
      return truth::half(bits);
    }
    const int code = element == Element::int8 ? random.integer(-128, 127) : random.integer(-8, 7);
    if (element == Element::int8) packed.put(place, static_cast<std::int8_t>(code));
    else packed.put_nibble((place - i) / 2 + i % 8, i >= 8, code);
    const std::size_t scale = (panel * (in / group) + k / group) * kPanel + i;
    return (code - static_cast<double>(zeros[scale])) * scales[scale];
  }
};

// A table of three rows.
struct CodedTable {
  static constexpr std::size_t rows = 3;
  std::string name;
  Element element;
  std::size_t width, group, row_bytes;
  bool half_scales, has_zeros;
  Packed packed;
  std::vector<float> scales;
  std::vector<std::uint16_t> halves;
  std::vector<std::int8_t> zeros;
  std::vector<double> values;

  CodedTable(Element element, std::size_t width, std::size_t group, bool half_scales, bool has_zeros)
      : name("table of element " + std::to_string(static_cast<int>(element))), element(element), width(width),
        group(group), row_bytes(bytes_of_a_row()), half_scales(half_scales), has_zeros(has_zeros),
        packed(rows * row_bytes), scales(rows * width / group), halves(scales.size()), zeros(scales.size()),
        values(rows * width) {
    Random random(width);
    for (std::size_t i = 0; i < scales.size(); ++i) {
      scales[i] = random.uniform(0.001f, 1);
      halves[i] = half_bits(random) & 0x7fff;
      zeros[i] = static_cast<std::int8_t>(has_zeros ? random.integer(-8, 7) : 0);
    }
    for (std::size_t row = 0; row < rows; ++row)
      for (std::size_t i = 0; i < width; ++i) values[row * width + i] = put(row, i, random);
  }
  double value(std::size_t row, std::size_t i) const { return values[row * width + i]; }
  Table view() const {
    const void* those = half_scales ? static_cast<const void*>(halves.data()) : scales.data();
    return {reinterpret_cast<const std::byte*>(packed.bytes.data()), element, row_bytes, those, half_scales,
            has_zeros ? zeros.data() : nullptr, group, width};
  }

 private:
  std::size_t bytes_of_a_row() const {
    switch (element) {
      case Element::float32: return width * 4;
      case Element::float16: return width * 2;
      case Element::int6: return width / 32 * 24;
      case Element::int4: return width / 32 * 16;
      default: return width;
    }
  }
  double put(std::size_t row, std::size_t i, Random& random) {
    if (element == Element::float32) {
      const float value = random.normal();
      packed.put(row * width + i, value);
      return value;
    }
    if (element == Element::float16) {
      const std::uint16_t bits = half_bits(random);
      packed.put(row * width + i, bits);
      return truth::half(bits);
    }
    const std::size_t place = row * (width / group) + i / group;
    const double scale = half_scales ? truth::half(halves[place]) : scales[place];
    return (put_code(row, i, random) - zeros[place]) * scale;
  }
  int put_code(std::size_t row, std::size_t i, Random& random) {
    if (element == Element::int8) {
      const int code = random.integer(-128, 127);
      packed.put(row * width + i, static_cast<std::int8_t>(code));
      return code;
    }
    const bool six = element == Element::int6;
    const int code = six ? random.integer(-32, 31) : random.integer(-8, 7);
    const std::size_t start = row * row_bytes + i / 32 * (six ? 24 : 16), j = i % 32;
    packed.put_nibble(start + j % 16, j >= 16, code);
    if (six) {
      std::uint8_t& tops = packed.bytes[start + 16 + j % 8];
      tops = static_cast<std::uint8_t>(tops | (code >> 4 & 3) << (2 * (j / 8)));
    }
    return code;
  }
};

}  // namespace tightrope
