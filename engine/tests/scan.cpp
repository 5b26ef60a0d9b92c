// The scan of an index on every instruction set of this processor, against its plain definition: bit by bit.
//
//   tests-scan
//
// Buffers end where their contents do, so that AddressSanitizer sees any step beyond.
#include "scan.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <random>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "isa.hpp"

using namespace tightrope;

namespace {

constexpr float kMark = 12345.678f;

void require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

struct Index {
  std::size_t stride, count;
  std::vector<std::int8_t> codes, query;
  std::vector<float> scales;
  std::vector<std::uint8_t> allowed;

  Rows rows(bool all) const { return {codes.data(), stride, count, scales.data(), all ? nullptr : allowed.data()}; }
};

// Every byte occurs, the ends of the range often: there an instruction that saturates would be caught.
Index random_index(std::size_t stride, std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> byte(-128, 127), choice(0, 3), one(0, 7);
  const auto code = [&] {
    const int kind = choice(random);
    return static_cast<std::int8_t>(kind == 0 ? -128 : kind == 1 ? 127 : byte(random));
  };
  Index made{stride, count, {}, {}, {}, {}};
  for (std::size_t i = 0; i < stride * count; ++i) made.codes.push_back(code());
  for (std::size_t i = 0; i < stride; ++i) made.query.push_back(code());
  for (std::size_t i = 0; i < count; ++i) {
    made.scales.push_back(static_cast<float>(1 + one(random)) / 1024);  // few values: scores are often equal
    made.allowed.push_back(one(random) != 0 && (i < 300 || i > 700));   // a long run of rows is left out
  }
  return made;
}

void products_are_exact(const ScanKernels& kernels) {
  for (const std::size_t stride : {64, 128, 192, 320, 384, 768, 1024})
    for (const std::size_t count : {1, 2, 3, 4, 5, 7, 8, 33}) {
      const Index index = random_index(stride, count, static_cast<std::uint32_t>(stride + count));
      std::vector<std::int32_t> found(count), wanted(count);
      kernels.products(index.codes.data(), stride, count, index.query.data(), found.data());
      kScanPlain.products(index.codes.data(), stride, count, index.query.data(), wanted.data());
      require(found == wanted, "products of " + std::to_string(count) + " rows of " + std::to_string(stride));
    }
}

void extremes_do_not_overflow(const ScanKernels& kernels) {
  const std::vector<std::int8_t> low(kMostScanned, -128), high(kMostScanned, 127);
  for (const auto& [row, query, product] :
       {std::tuple{&low, &low, 16384}, std::tuple{&low, &high, -16256}, std::tuple{&high, &high, 16129}}) {
    std::int32_t found = 0;
    kernels.products(row->data(), kMostScanned, 1, query->data(), &found);
    require(found == product * static_cast<std::int32_t>(kMostScanned), "the longest row of equal bytes");
  }
}

// Scores of all rows, sorted: what a scan has to find, written as plainly as can be.
std::vector<std::pair<float, std::int64_t>> sorted(const Index& index, bool all) {
  std::vector<std::int32_t> products(index.count);
  kScanPlain.products(index.codes.data(), index.stride, index.count, index.query.data(), products.data());
  std::vector<std::pair<float, std::int64_t>> scores;
  for (std::size_t i = 0; i < index.count; ++i)
    if (all || index.allowed[i] != 0)
      scores.emplace_back(-(static_cast<float>(products[i]) * index.scales[i]), static_cast<std::int64_t>(i));
  std::sort(scores.begin(), scores.end());
  return scores;
}

void the_best_are_found(const ScanKernels& kernels) {
  for (const std::size_t count : {1, 255, 256, 257, 1000})
    for (const std::size_t most : {1, 10, 2000})
      for (const bool all : {true, false}) {
        const Index index = random_index(64, count, static_cast<std::uint32_t>(count + most));
        std::vector<std::int64_t> places(most, -1);
        std::vector<float> scores(most, kMark);
        const std::size_t found = scan(kernels, index.rows(all), index.query.data(), places, scores);
        const auto wanted = sorted(index, all);
        require(found == std::min(most, wanted.size()), "how many are found among " + std::to_string(count));
        for (std::size_t i = 0; i < found; ++i)
          require(places[i] == wanted[i].second && scores[i] == -wanted[i].first, "place " + std::to_string(i) + " of " + std::to_string(most));
        for (std::size_t i = found; i < most; ++i)
          require(places[i] == -1 && scores[i] == kMark, "nothing is written behind the last that was found");
      }
}

void nan_is_left_out(const ScanKernels& kernels) {
  Index index = random_index(64, 20, 1);
  for (std::size_t i = 0; i < 20; i += 2) index.scales[i] = std::nanf("");
  std::vector<std::int64_t> places(20);
  std::vector<float> scores(20);
  require(scan(kernels, index.rows(true), index.query.data(), places, scores) == 10, "ten rows have a score");
  for (std::size_t i = 0; i < 10; ++i) require(places[i] % 2 == 1, "a row without a score is not among them");
}

constexpr std::pair<const char*, void (*)(const ScanKernels&)> kChecks[] = {
    {"products of bytes, exactly", products_are_exact},
    {"the longest rows of the largest bytes", extremes_do_not_overflow},
    {"the best rows in their order", the_best_are_found},
    {"a row whose score is not a number", nan_is_left_out},
};

}  // namespace

int main() {
  int failed = 0;
  for (const Kernels* kernels : available())
    for (const auto& [name, check] : kChecks) try {
        check(scan_for(kernels->isa));
        std::printf("ok      %-13s %s\n", kernels->isa, name);
      } catch (const std::exception& error) {
        std::printf("FAILED  %-13s %s: %s\n", kernels->isa, name, error.what());
        ++failed;
      }
  return failed == 0 ? 0 : 1;
}
