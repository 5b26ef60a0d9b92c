// How long a scan of 50,000 rows of 384 bytes takes on each instruction set, beside only reading them.
//
//   benches-scan [rows]
//
// Reading sums 64-bit words: what memory and caches give one core, and so the limit of any exact scan.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "isa.hpp"
#include "scan.hpp"

namespace {

using namespace tightrope;

constexpr std::size_t kStride = 384, kRounds = 200;

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <class Act>
void report(const char* name, std::size_t bytes, Act&& act) {
  std::vector<double> seconds;
  for (std::size_t round = 0; round < kRounds; ++round) {
    const double start = now();
    act();
    seconds.push_back(now() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  std::printf("%-13s p50 %7.3f ms   p95 %7.3f ms   %6.1f GB/s\n", name, 1e3 * seconds[kRounds / 2],
              1e3 * seconds[kRounds * 95 / 100], 1e-9 * static_cast<double>(bytes) / seconds[kRounds / 2]);
}

}  // namespace

int main(int count, char** words) {
  const std::size_t rows = count > 1 ? std::strtoul(words[1], nullptr, 10) : 50000;
  std::mt19937 random(1);
  std::vector<std::int8_t> codes(rows * kStride), query(kStride);
  for (std::int8_t& code : codes) code = static_cast<std::int8_t>(random());
  for (std::int8_t& code : query) code = static_cast<std::int8_t>(random());
  const std::vector<float> scales(rows, 1.0f);
  std::vector<std::int64_t> places(40);
  std::vector<float> scores(40);
  volatile std::uint64_t kept = 0;
  report("reading", codes.size(), [&] {
    std::uint64_t sums[8] = {}, words[8];
    for (std::size_t at = 0; at + sizeof words <= codes.size(); at += sizeof words) {
      std::memcpy(words, codes.data() + at, sizeof words);
      for (std::size_t i = 0; i < 8; ++i) sums[i] += words[i];
    }
    for (const std::uint64_t sum : sums) kept = kept + sum;
  });
  for (const Kernels* kernels : available())
    report(kernels->isa, codes.size(), [&] {
      scan(scan_for(kernels->isa), {codes.data(), kStride, rows, scales.data(), nullptr}, query.data(), places, scores);
    });
}
