// Where each microsecond goes: one pass of a text through a real model, timed kernel by kernel.
//
//   phases MODEL.tightrope [TOKENS ...]        JSON on standard output; benchmarks/native.py makes a table of it
//
// The kernels are a table of functions, so each is replaced by one that reads the clock around the real one. A reading
// costs some 20 ns, which the whole pass, timed without any, is there to tell.
#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "isa.hpp"
#include "pass.hpp"

namespace {

using namespace tightrope;
using Clock = std::chrono::steady_clock;

constexpr int kPasses = 300;

const Kernels* real;
std::map<std::string, double> spent;  // seconds by phase, of one pass

class Timer {
 public:
  explicit Timer(std::string phase) : phase_(std::move(phase)), start_(Clock::now()) {}
  ~Timer() { spent[phase_] += std::chrono::duration<double>(Clock::now() - start_).count(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  std::string phase_;
  Clock::time_point start_;
};

void quantize(const float* x, std::size_t x_stride, const Preparation& how, std::size_t first, std::size_t last,
              std::int8_t* codes, float* scales, std::size_t stride) {
  const Timer timer(how.rotation > 1 ? "rotate and quantise " + std::to_string(how.width)
                                     : "quantise " + std::to_string(how.width));
  real->quantize(x, x_stride, how, first, last, codes, scales, stride);
}

void multiply(const Codes& x, const Integers& weight, std::size_t first_panel, std::size_t last_panel,
              const Output& out) {
  const Timer timer("multiply " + std::to_string(weight.in) + " by " + std::to_string(weight.out));
  real->multiply(x, weight, first_panel, last_panel, out);
}

void normalize(const float* x, std::size_t stride, std::size_t first, std::size_t last, std::size_t width,
               const float* gain, const float* bias, float epsilon, float* out) {
  const Timer timer("normalise");
  real->normalize(x, stride, first, last, width, gain, bias, epsilon, out);
}

void attend(const Head& head, std::byte* scratch) {
  const Timer timer("attention");
  real->attend(head, scratch);
}

double seconds(Pass& pass, const Batch& batch, float* out) {
  const auto start = Clock::now();
  pass.run(batch, out);
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

void report(const Encoder& encoder, std::size_t tokens, bool last) {
  Kernels timed = *real;
  timed.quantize = quantize;
  timed.multiply = multiply;
  timed.normalize = normalize;
  timed.attend = attend;
  std::vector<std::int32_t> ids(tokens);
  for (std::size_t i = 0; i < tokens; ++i) ids[i] = static_cast<std::int32_t>(i * 37 % encoder.config().vocabulary);
  const std::vector<std::int64_t> offsets{0, static_cast<std::int64_t>(tokens)};
  const Batch batch{ids, {}, offsets};
  std::vector<float> out(encoder.config().width);
  Workspace memory;
  Pass whole(encoder, *real, false, nullptr, memory), parted(encoder, timed, false, nullptr, memory);
  std::vector<double> totals;
  std::map<std::string, std::vector<double>> phases;
  for (int pass = 0; pass < kPasses; ++pass) {
    totals.push_back(seconds(whole, batch, out.data()));
    spent.clear();
    seconds(parted, batch, out.data());
    for (const auto& [phase, value] : spent) phases[phase].push_back(value);
  }
  std::printf("  \"%zu\": {\"whole_s\": %.9f, \"phases_s\": {", tokens, median(totals));
  const char* comma = "";
  for (const auto& [phase, values] : phases) {
    std::printf("%s\"%s\": %.9f", comma, phase.c_str(), median(values));
    comma = ", ";
  }
  std::printf("}}%s\n", last ? "" : ",");
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::fprintf(stderr, "No model was given.\nphases MODEL.tightrope [TOKENS ...]\n");
    return 2;
  }
  try {
    real = &chosen();
    const int descriptor = open(arguments[1], O_RDONLY);
    const Mapping mapping(descriptor);
    const Artefact file(mapping.bytes());
    const Encoder encoder(file);
    std::printf("{\"isa\": \"%s\", \"passes\": %d, \"lengths\": {\n", real->isa, kPasses);
    std::vector<std::size_t> lengths;
    for (int i = 2; i < count; ++i) lengths.push_back(std::strtoul(arguments[i], nullptr, 10));
    if (lengths.empty()) lengths = {12, 32, 128};
    for (std::size_t i = 0; i < lengths.size(); ++i) report(encoder, lengths[i], i + 1 == lengths.size());
    std::printf("}}\n");
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n%s\n", error.what(), error.hint.c_str());
    return 2;
  }
}
