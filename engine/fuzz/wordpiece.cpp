// Fuzzes the native tokenizer: a hostile packed file, and a text for it.
//
// An input is packed bytes, 0xFF, and text: the last 0xFF, which is in no UTF-8, parts the two. Bytes that are mutated
// at random hardly ever pass the header, so begin with a corpus of real ones; a tokenizer of few pieces is best:
//
//   mkdir -p corpus && .venv/bin/python -c 'import sys, tests.conftest as t
//   from tightrope.workshop.convert._wordpiece import pack
//   sys.stdout.buffer.write(pack(t.wordpiece()) + b"\xffthe Cat [SEP] sat\xc3\xa9")' > corpus/seed
//   cmake -S engine -B build/fuzz -DCMAKE_CXX_COMPILER=clang++ -DTIGHTROPE_FUZZERS=ON && cmake --build build/fuzz
//   build/fuzz/fuzz-wordpiece -max_len=8192 corpus
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>
#include <vector>

#include "error.hpp"
#include "wordpiece.hpp"

namespace {

using Ids = std::vector<std::int32_t>;

void require(bool met) {
  if (!met) std::abort();
}

void check_ids(const tightrope::WordPiece& tokenizer, const Ids& ids) {
  const auto known = [&](std::int32_t id) { return id >= 0 && static_cast<std::size_t>(id) < tokenizer.vocabulary(); };
  require(std::ranges::all_of(ids, known));
}

// A text that is cut gives the first ids of the whole text; a pair has a type for each id.
void check_text(const tightrope::WordPiece& tokenizer, std::string_view text) {
  Ids whole, cut, pair, types;
  require(!tokenizer.encode(text, SIZE_MAX, whole));
  const std::size_t limit = 2 + text.size() % 7;
  require(tokenizer.encode(text, limit, cut) == (whole.size() > limit));
  require(cut.size() == std::min(limit, whole.size()));
  require(std::equal(cut.begin(), cut.end() - 1, whole.begin()) && cut.back() == whole.back());
  tokenizer.encode_pair(text, text, limit + 1, pair, types);
  require(pair.size() <= limit + 1 && pair.size() == types.size());
  check_ids(tokenizer, whole);
  check_ids(tokenizer, pair);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> input(data, size);
  const auto parting = std::find(input.rbegin(), input.rend(), std::uint8_t{0xFF});
  const auto text_size = static_cast<std::size_t>(parting - input.rbegin());
  const std::size_t packed_size = parting == input.rend() ? 0 : size - text_size - 1;
  try {
    const tightrope::WordPiece tokenizer(std::as_bytes(input.first(packed_size)));
    const auto text = input.last(text_size);
    check_text(tokenizer, {reinterpret_cast<const char*>(text.data()), text.size()});
  } catch (const tightrope::Error&) {  // the one kind of refusal there is
  }
  return 0;
}
