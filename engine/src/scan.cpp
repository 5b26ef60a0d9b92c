#include "scan.hpp"

#include <algorithm>
#include <vector>

namespace tightrope {
namespace {

struct Found {
  float score;
  std::int64_t place;
};

// Whether `a` comes before `b` in an answer. As the order of a heap it keeps the worst of the best on top.
bool before(const Found& a, const Found& b) { return a.score > b.score || (a.score == b.score && a.place < b.place); }

class Best {
 public:
  explicit Best(std::size_t most) : most_(most) { kept_.reserve(most); }

  // Rows come in the order of their places, so one that equals the worst comes after it.
  void offer(float score, std::size_t place) {
    if (kept_.size() == most_) {
      if (!(score > kept_.front().score)) return;  // refuses nan too
      std::pop_heap(kept_.begin(), kept_.end(), before);
      kept_.pop_back();
    } else if (score != score) {
      return;
    }
    kept_.push_back({score, static_cast<std::int64_t>(place)});
    std::push_heap(kept_.begin(), kept_.end(), before);
  }

  std::size_t write(std::span<std::int64_t> places, std::span<float> scores) {
    std::sort_heap(kept_.begin(), kept_.end(), before);
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      places[i] = kept_[i].place;
      scores[i] = kept_[i].score;
    }
    return kept_.size();
  }

 private:
  std::vector<Found> kept_;
  std::size_t most_;
};

// The end of the run of rows that are allowed, or of those that are not, which begins at `first`.
std::size_t run(const Rows& rows, std::size_t first, std::size_t last, bool allowed) {
  if (rows.allowed == nullptr) return allowed ? last : first;
  while (first < last && (rows.allowed[first] != 0) == allowed) ++first;
  return first;
}

}  // namespace

const ScanKernels& scan_for(std::string_view isa) {
#if defined(__x86_64__)
  if (isa == "amx" || isa.starts_with("avx512")) return kScanAvx512Vnni;
  if (isa == "avx-vnni") return kScanAvxVnni;
  if (isa == "avx2") return kScanAvx2;
#elif defined(__aarch64__)
  if (isa == "neon-dotprod" || isa == "neon-i8mm") return kScanNeonDotProduct;
  if (isa == "neon") return kScanNeon;
#endif
  (void)isa;
  return kScanPlain;
}

std::size_t scan(const ScanKernels& kernels, const Rows& rows, const std::int8_t* query, std::span<std::int64_t> places,
                 std::span<float> scores) {
  constexpr std::size_t kBlock = 256;  // products that stay in the first cache until they are judged
  if (places.empty()) return 0;
  Best best(std::min(places.size(), rows.count));
  std::int32_t products[kBlock];
  for (std::size_t row = run(rows, 0, rows.count, false); row < rows.count;) {
    const std::size_t end = run(rows, row, std::min(rows.count, row + kBlock), true);
    kernels.products(rows.codes + row * rows.stride, rows.stride, end - row, query, products);
    for (std::size_t i = 0; i < end - row; ++i)
      best.offer(static_cast<float>(products[i]) * rows.scales[row + i], row + i);
    row = run(rows, end, rows.count, false);
  }
  return best.write(places, scores);
}

}  // namespace tightrope
