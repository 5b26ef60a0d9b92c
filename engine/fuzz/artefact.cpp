// Fuzzes the loader and the encoder: hostile bytes as a model's file, and where that opens, one small run.
//
// engine/fuzz.sh builds this and starts it with real files, made by engine/fuzz/seeds.py. The size that the header
// claims is put right here, so that files may grow and shrink; the tests look after wrong ones.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "artefact.hpp"
#include "encoder.hpp"
#include "isa.hpp"
#include "pass.hpp"
#include "wordpiece.hpp"

namespace {

using namespace tightrope;

constexpr std::size_t kMost = 256 << 10;  // bytes of a file; what a model takes in memory is bounded by its file
constexpr std::size_t kSizeField = 16;

// A copy of exactly these bytes where a mapping would begin: at a boundary, with nothing readable behind it.
class Aligned {
 public:
  Aligned(const std::uint8_t* data, std::size_t size) : size_(size) {
    void* place = nullptr;
    if (posix_memalign(&place, kAlignment, std::max<std::size_t>(size, 1)) != 0) std::abort();
    bytes_.reset(static_cast<std::byte*>(place));
    std::memcpy(bytes_.get(), data, size);
    const std::uint64_t real = size;
    if (size >= kSizeField + sizeof real) std::memcpy(bytes_.get() + kSizeField, &real, sizeof real);
  }
  std::span<const std::byte> bytes() const { return {bytes_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> bytes_;
  std::size_t size_;
};

using Rows = std::vector<float>;

Rows run(const Encoder& encoder, const Kernels& kernels, bool halves, const Batch& batch) {
  encoder.check(batch);
  Workspace memory;  // a new one each time: the sanitizer sees where each buffer ends
  Rows out(batch.texts() * encoder.config().width);
  Pass(encoder, kernels, halves, nullptr, memory).run(batch, out.data());
  return out;
}

// Three texts together, and the last one alone, which must say the same.
void ask(const Encoder& encoder, const Kernels& kernels, bool halves) {
  const Config& config = encoder.config();
  const auto most = static_cast<std::int64_t>(std::min<std::uint32_t>(config.max_length, 19));
  const std::int64_t alone[] = {0, most}, together[] = {0, 1, 1 + (most + 1) / 2, 1 + (most + 1) / 2 + most};
  std::vector<std::int32_t> ids(static_cast<std::size_t>(together[3])), types;
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>((i * 7 + 2) % config.vocabulary);
  for (std::size_t i = 0; i < ids.size() && config.types != 0; ++i) types.push_back(static_cast<std::int32_t>(i % config.types));
  const Rows all = run(encoder, kernels, halves, {ids, types, together});
  const auto last = static_cast<std::size_t>(most);
  const std::span<const std::int32_t> some_ids(ids), some_types(types);
  const Rows one = run(encoder, kernels, halves,
                       {some_ids.last(last), types.empty() ? some_types : some_types.last(last), alone});
  const float* same = all.data() + 2 * config.width;
  for (std::size_t i = 0; i < one.size(); ++i)
    if (std::isfinite(one[i]) && one[i] != same[i]) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > kMost) return -1;
  const Aligned file(data, size);
  try {
    const Artefact artefact(file.bytes());
    if (artefact.has("wordpiece")) {
      std::vector<std::int32_t> ids;
      WordPiece(artefact.section("wordpiece").bytes).encode("the Cat [SEP] sat\xc3\xa9", 16, ids);
    }
    const Encoder encoder(artefact);
    for (const Kernels* kernels : {available()[size % available().size()], available().front()})
      ask(encoder, *kernels, size % 2 == 0);
  } catch (const Error&) {  // the one kind of refusal there is
  }
  return 0;
}
