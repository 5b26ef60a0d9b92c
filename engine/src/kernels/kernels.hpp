// The seam between the encoder and the instruction sets: plain structures in, functions out.
//
// Every instruction set offers the same functions over the same layouts, so the encoder knows none of them. What a row
// comes out as depends on that row alone (and, in attention, on its text), never on how many rows a call has: that is
// why batches, threads and neighbours cannot change an answer.
//
// Files that include this are compiled for instruction sets that the machine may lack. They use no templates or inline
// functions of the standard library: the linker keeps one copy of those, and it could be theirs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tightrope {

// Layouts are made of these, whatever the instruction set: a panel holds 16 outputs, inputs come in blocks of 64.
inline constexpr std::size_t kPanel = 16;
inline constexpr std::size_t kBlock = 64;
inline constexpr std::size_t kRows = 16;  // buffers of rows are made for a multiple of this

constexpr std::size_t round_up(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// How a row is prepared before it is multiplied: x * factor + offset, then a Hadamard transform over blocks.
struct Preparation {
  std::size_t width = 0;          // features of x
  const float* factor = nullptr;  // [width], or null for ones
  const float* offset = nullptr;  // [width], or null for zeros
  std::size_t rotation = 0;       // length of a block, a power of two that divides width; 0 for none
};

// Rows as int8 codes: real = code * scale. Signed or counted from -128, by rows or in tiles: only the instruction set
// that wrote them can read them. Features beyond the real ones are zero.
struct Codes {
  const std::int8_t* values = nullptr;  // [rows rounded up to 16, stride]
  const float* scales = nullptr;        // [rows]
  std::size_t rows = 0;
  std::size_t stride = 0;  // bytes, a multiple of 64
};

// A linear layer on integers. Panels: [out / 16][in / 4][16][4] codes; sums: of each output's codes.
struct Integers {
  const std::int8_t* panels = nullptr;
  const float* scales = nullptr;        // [out]
  const float* bias = nullptr;          // [out]
  const std::int32_t* sums = nullptr;   // [out]
  std::size_t in = 0;                   // a multiple of 64
  std::size_t out = 0;                  // a multiple of 16
  bool paired = false;                  // inputs 2i and 2i + 1 of an output: codes of one sign add up to 128 at most
};

enum class Element : std::uint32_t { float32 = 1, float16 = 2, int8 = 3, int4 = 4, int6 = 5, int32 = 6, bytes = 7 };

// A linear layer in float arithmetic, whatever its weights are stored as.
// Panels: [out / 16][in][16] elements; scales and zeros: [out / 16][in / group][16], real = (code - zero) * scale.
struct Floats {
  const void* panels = nullptr;
  Element element = Element::float32;
  const float* scales = nullptr;  // integers only
  const float* zeros = nullptr;   // integers only, or null for zero
  std::size_t group = 0;          // inputs that share a scale
  const float* bias = nullptr;    // [out]
  std::size_t in = 0;
  std::size_t out = 0;  // a multiple of 16
};

enum class Activation : std::uint32_t { identity = 0, gelu = 1, gelu_tanh = 2, relu = 3, tanh = 4, sigmoid = 5 };

// Where a product goes: activation(x W + b), or x W + b + residual; columns of whole panels.
struct Output {
  float* values = nullptr;
  std::size_t stride = 0;  // floats between rows, of the residual's rows too
  Activation activation = Activation::identity;
  const float* residual = nullptr;  // may be the values themselves; never together with an activation
};

// A table of rows; codes of a group share a scale: real = (code - zero) * scale.
struct Table {
  const std::byte* rows = nullptr;
  Element element = Element::float32;
  std::size_t row_bytes = 0;
  const void* scales = nullptr;  // [rows, width / group]
  bool half_scales = false;      // scales are float16
  const std::int8_t* zeros = nullptr;  // [rows, width / group], or null
  std::size_t group = 0;
  std::size_t width = 0;
};

// One head of one text: query, key, value and context are rows of `size` floats, `stride` floats apart.
struct Head {
  const float* query = nullptr;
  const float* key = nullptr;
  const float* value = nullptr;
  std::size_t stride = 0;
  float* context = nullptr;
  std::size_t context_stride = 0;
  std::size_t length = 0;  // tokens
  std::size_t size = 0;    // features of a head
  float scale = 1;
};

struct Kernels {
  const char* isa;
  // Codes of rows [first, last) of x, with zeros up to `stride` bytes.
  void (*quantize)(const float* x, std::size_t x_stride, const Preparation& how, std::size_t first, std::size_t last,
                   std::int8_t* codes, float* scales, std::size_t stride);
  // The same rows prepared but not rounded, or rounded to their grid and back.
  void (*prepare)(const float* x, std::size_t x_stride, const Preparation& how, std::size_t first, std::size_t last,
                  bool rounded, float* out, std::size_t out_stride);
  void (*multiply)(const Codes& x, const Integers& weight, std::size_t first_panel, std::size_t last_panel,
                   const Output& out);
  void (*multiply_floats)(const float* x, std::size_t x_stride, std::size_t rows, const Floats& weight,
                          std::size_t first_panel, std::size_t last_panel, const Output& out);
  // Rows [first, last) of x normalised; padding up to a multiple of 16 features is zero.
  void (*normalize)(const float* x, std::size_t stride, std::size_t first, std::size_t last, std::size_t width,
                    const float* gain, const float* bias, float epsilon, float* out);
  // out += row `index` of the table.
  void (*gather)(const Table& table, std::size_t index, float* out);
  // Attention in float32. `scratch` holds `attention_bytes(length, size)` bytes, aligned to 64.
  void (*attend)(const Head& head, std::byte* scratch);
  std::size_t (*attention_bytes)(std::size_t length, std::size_t size);
  // The same from pairs of bfloat16, where the instruction set multiplies those; elsewhere `attend` again.
  void (*attend_halves)(const Head& head, std::byte* scratch);
  std::size_t (*half_attention_bytes)(std::size_t length, std::size_t size);
  void (*activate)(float* x, std::size_t count, Activation activation);
};

// What this build has; null where the compiler's target has none of it.
extern const Kernels kPlain;
#if defined(__x86_64__)
extern const Kernels kAvx2, kAvxVnni, kAvx512Vnni, kAvx512Bf16, kAmx;
#elif defined(__aarch64__)
extern const Kernels kNeon, kNeonDotProduct, kNeonI8mm;
#endif

}  // namespace tightrope
