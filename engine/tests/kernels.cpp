// Every instruction set of this processor against the plain definition of what each kernel does, in double precision.
//
//   tests-kernels [isa]
//
// Integers are compared bit by bit: scales are 1, so a product is its integer sum, rounded to float32 once. Of floats,
// each check says how far they may be off and why. That an answer never depends on its neighbours is checked bit by bit
// too: a row alone, rows together, panels in any parts. Buffers end where their contents do, and what should not be
// written holds a mark, so that AddressSanitizer and the marks see any step beyond.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "attention.hpp"
#include "error.hpp"
#include "isa.hpp"
#include "products.hpp"
#include "rows.hpp"

using namespace tightrope;

namespace {

struct Check {
  const char* name;
  void (*run)(const Kernels& kernels);
};

constexpr Check kChecks[] = {
    {"multiply: sums of bytes, exactly", integer_sums},
    {"multiply: scale, bias, activation, residual", integer_ends},
    {"multiply: no answer depends on its neighbours", integer_neighbours},
    {"multiply_floats", float_products},
    {"prepare", preparing},
    {"quantize", quantizing},
    {"normalize", normalizing},
    {"gather", gathering},
    {"activate", activating},
    {"attend", attending},
    {"attend_halves", attending_halves},
};

bool passes(const Kernels& kernels, const Check& check) {
  try {
    check.run(kernels);
    std::printf("ok      %-13s %s\n", kernels.isa, check.name);
    return true;
  } catch (const std::exception& error) {
    std::printf("FAILED  %-13s %s: %s\n", kernels.isa, check.name, error.what());
    return false;
  }
}

}  // namespace

int main(int count, char** words) {
  int passed = 0, failed = 0;
  try {
    if (count > 1) setenv("TIGHTROPE_ISA", words[1], 1);
    const bool one = std::getenv("TIGHTROPE_ISA") != nullptr;
    for (const Kernels* kernels : one ? std::vector<const Kernels*>{&chosen()} : available())
      for (const Check& check : kChecks) ++(passes(*kernels, check) ? passed : failed);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n%s\n", error.what(), error.hint.c_str());
    return 2;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
