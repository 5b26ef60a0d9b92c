// The rate of products of bytes, beside what this core can do with the same instruction and nothing else.
//
//   bench-kernels [isa]
//
// Shapes are all-MiniLM-L6-v2's. Kernel and peak take turns of a tenth of a millisecond, so that they share a clock: left
// alone for two milliseconds, the loop on registers draws less power and is clocked a tenth higher than the kernel. A
// row gives the medians of the rates and of their quotients.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "isa.hpp"
#include "kernels/kernels.hpp"

namespace {

using namespace tightrope;

// Peaks ------------------------------------------------------------------------------------------------
//
// Whole loops in assembly: sums are named registers, so no compiler can move or spill them, and the file needs no flags.
// Each makes `times` rounds and says how many products a round has.

struct Peak {
  const char* name;
  double products;  // of a round
  void (*run)(std::size_t times);
};

#define EIGHT(one) one(0) one(1) one(2) one(3) one(4) one(5) one(6) one(7)
#define TWELVE(one) EIGHT(one) one(8) one(9) one(10) one(11)
#define TWICE(one) TWELVE(one) TWELVE(one)  // so that counting takes little from the ports that multiply

#if defined(__x86_64__)

#define LOOP(body) __asm__ volatile("1:\n\t" body "dec %0\n\tjnz 1b\n\tvzeroupper" : "+r"(times) : : "cc", "xmm0", \
    "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", \
    "xmm14", "xmm15")

#define WIDE(i) "vpdpbusd %%zmm12, %%zmm13, %%zmm" #i "\n\t"
#define NARROW(i) "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" #i "\n\t"
// What a product costs without VNNI: the sign is moved, pairs are made, widened and added. Four by four.
#define PAIRS(i) "vpsignb %%ymm12, %%ymm13, %%ymm14\n\tvpmaddubsw %%ymm14, %%ymm13, %%ymm14\n\t" \
                 "vpmaddwd %%ymm12, %%ymm14, %%ymm14\n\tvpaddd %%ymm14, %%ymm" #i ", %%ymm" #i "\n\t"

void wide(std::size_t times) { LOOP(TWICE(WIDE)); }
void narrow(std::size_t times) { LOOP(TWICE(NARROW)); }
void pairs(std::size_t times) { LOOP(TWICE(PAIRS)); }

void tiles(std::size_t times) {
  struct alignas(64) {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } const shape;
  __asm__ volatile("ldtilecfg %1\n1:\n\t"
                   "tdpbssd %%tmm6, %%tmm4, %%tmm0\n\ttdpbssd %%tmm7, %%tmm4, %%tmm1\n\t"
                   "tdpbssd %%tmm6, %%tmm5, %%tmm2\n\ttdpbssd %%tmm7, %%tmm5, %%tmm3\n\t"
                   "dec %0\n\tjnz 1b\n\ttilerelease"
                   : "+r"(times)
                   : "m"(shape)
                   : "cc");
}

Peak peak_of(const std::string& isa) {
  if (isa == "amx") return {"tdpbssd", 4 * 16 * 16 * 64, tiles};
  if (isa == "avx512-vnni" || isa == "avx512-bf16") return {"vpdpbusd zmm", 24 * 64, wide};
  if (isa == "avx-vnni") return {"vpdpbusd ymm", 24 * 32, narrow};
  if (isa == "avx2") return {"vpsignb vpmaddubsw vpmaddwd vpaddd", 24 * 32, pairs};
  return {"none", 0, nullptr};
}

#elif defined(__aarch64__)

#define LOOP(body) __asm__ volatile(".arch armv8.2-a+dotprod+i8mm\n1:\n\t" body "subs %0, %0, #1\n\tb.ne 1b" \
    : "+r"(times) : : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", \
    "v14")

#define MATRIX(i) "smmla v" #i ".4s, v12.16b, v13.16b\n\t"
#define DOT(i) "sdot v" #i ".4s, v12.16b, v13.4b[0]\n\t"
#define PAIRS(i) "smull v14.8h, v12.8b, v13.8b\n\tsmlal v14.8h, v13.8b, v12.8b\n\tsadalp v" #i ".4s, v14.8h\n\t"

void matrix(std::size_t times) { LOOP(TWICE(MATRIX)); }
void dot(std::size_t times) { LOOP(TWICE(DOT)); }
void pairs(std::size_t times) { LOOP(TWICE(PAIRS)); }

Peak peak_of(const std::string& isa) {
  if (isa == "neon-i8mm") return {"smmla", 24 * 32, matrix};
  if (isa == "neon-dotprod") return {"sdot", 24 * 16, dot};
  if (isa == "neon") return {"smull smlal sadalp", 24 * 16, pairs};
  return {"none", 0, nullptr};
}

#else

Peak peak_of(const std::string&) { return {"none", 0, nullptr}; }

#endif

// Rates ------------------------------------------------------------------------------------------------

// Of the processor's time, not the wall's: what other programs take is not the kernels' fault.
double now() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <class Act>
double seconds(Act act) {
  const double start = now();
  act();
  return now() - start;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// Memory as the engine has it: aligned to 64 bytes.
template <class T>
struct Array {
  explicit Array(std::size_t count)
      : values(static_cast<T*>(std::aligned_alloc(64, round_up(count * sizeof(T), 64)))), count(count) {
    if (values == nullptr) std::abort();
    std::memset(static_cast<void*>(values), 0, count * sizeof(T));
  }
  ~Array() { std::free(values); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T* values;
  std::size_t count;
};

constexpr double kTurn = 1e-4;  // seconds
constexpr int kTurns = 301;

struct Shape {
  std::size_t in, out;
};

void fill(Array<std::int8_t>& codes, std::mt19937& random) {
  for (std::size_t i = 0; i < codes.count; ++i) codes.values[i] = static_cast<std::int8_t>(random() % 255) - 127;
}

void measure(const Kernels& kernels, const Peak& peak, std::size_t rows, Shape shape) {
  std::mt19937 random(1);
  Array<std::int8_t> panels(shape.in * shape.out), codes(round_up(rows, 2 * kRows) * shape.in);
  Array<float> x(rows * shape.in), row_scales(round_up(rows, kRows)), scales(shape.out), bias(shape.out);
  Array<float> out(rows * shape.out);
  Array<std::int32_t> sums(shape.out);
  fill(panels, random);
  for (std::size_t i = 0; i < x.count; ++i) x.values[i] = static_cast<float>(random() % 2001) - 1000.0f;
  const Preparation how{shape.in, nullptr, nullptr, 0};
  kernels.quantize(x.values, shape.in, how, 0, rows, codes.values, row_scales.values, shape.in);
  const Codes input{codes.values, row_scales.values, rows, shape.in};
  const Integers weight{panels.values, scales.values, bias.values, sums.values, shape.in, shape.out};
  const Output output{out.values, shape.out, Activation::identity, nullptr};

  const double products = static_cast<double>(rows * shape.in * shape.out);
  const auto multiply = [&] { kernels.multiply(input, weight, 0, shape.out / kPanel, output); };
  const auto calls = static_cast<std::size_t>(kTurn / std::max(seconds(multiply), seconds(multiply)) + 1);
  const auto rounds = peak.run ? static_cast<std::size_t>(kTurn * 1e5 / seconds([&] { peak.run(100000); })) + 1 : 0;
  std::vector<double> rates, peaks, shares;
  for (int turn = 0; turn < kTurns; ++turn) {
    rates.push_back(products * static_cast<double>(calls) / 1e9 / seconds([&] {
      for (std::size_t i = 0; i < calls; ++i) multiply();
    }));
    if (!peak.run) continue;
    peaks.push_back(peak.products * static_cast<double>(rounds) / 1e9 / seconds([&] { peak.run(rounds); }));
    shares.push_back(rates.back() / peaks.back());
  }
  std::printf("%-13s %4zu rows  %4zu x %-4zu  %8.1f GMAC/s", kernels.isa, rows, shape.in, shape.out, median(rates));
  if (peak.run) std::printf("  of %8.1f  %5.1f %%", median(peaks), 100 * median(shares));
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  bool any = false;
  for (const Kernels* kernels : available()) {
    if (count > 1 && std::string(arguments[1]) != kernels->isa) continue;
    any = true;
    const Peak peak = peak_of(kernels->isa);
    std::printf("%s: the peak is that of %s\n", kernels->isa, peak.name);
    for (std::size_t rows : {12, 32, 128, 512})
      for (Shape shape : {Shape{384, 1152}, Shape{384, 384}, Shape{384, 1536}, Shape{1536, 384}})
        measure(*kernels, peak, rows, shape);
  }
  if (!any) std::fprintf(stderr, "%s is not an instruction set of this processor\n", arguments[1]);
  return any ? 0 : 1;
}
