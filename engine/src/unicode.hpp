// What the BERT normaliser and pre-tokenizer of `tokenizers` know of each character.
// The tables are observed from it by engine/tools/unicode_tables.py, whatever version of Unicode its crates use.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace tightrope::unicode {

using Traits = std::uint8_t;
inline constexpr Traits removed = 1;        // control, format and private characters, and U+FFFD
inline constexpr Traits space = 2;
inline constexpr Traits ideograph = 4;      // a word of its own where ideographs are told apart
inline constexpr Traits punctuation = 8;    // a word of its own, always
inline constexpr Traits nonspacing = 16;    // an accent that can be stripped
inline constexpr Traits decomposes = 32;
inline constexpr Traits capital = 64;
inline constexpr Traits nonstarter = 128;   // a mark with a combining class: neighbours of this kind are put in order

struct Range { char32_t first, last; Traits traits; };
struct Decomposition { char32_t from; std::uint32_t to; };  // length << 24 | the character itself, or its place in pool
struct CaseRun { char32_t first, last; std::int32_t distance; };
struct Mark { char32_t mark; std::uint32_t order; };

inline constexpr char32_t paged = 0x30000;
inline constexpr char32_t block = 64;
inline constexpr char32_t dotted_capital_i = 0x130;  // the one capital that becomes two characters: i and U+0307

extern const std::uint8_t page_of[paged / block];
extern const Traits pages[];
extern const std::span<const Range> ranges;
extern const std::span<const Decomposition> decompositions;
extern const std::span<const char32_t> pool;
extern const std::span<const CaseRun> case_runs;
extern const std::span<const Mark> marks;

inline Traits traits(char32_t c) {
  if (c < paged) return pages[page_of[c / block] * block + c % block];
  const auto range = std::ranges::find_if(ranges, [c](const Range& r) { return r.first <= c && c <= r.last; });
  return range == ranges.end() ? Traits{0} : range->traits;
}

// The small letter of any capital but dotted_capital_i.
inline char32_t small(char32_t c) {
  const auto run = std::ranges::lower_bound(case_runs, c, {}, &CaseRun::last);
  return static_cast<char32_t>(static_cast<std::int32_t>(c) + run->distance);
}

// The rank of the combining class of a nonstarter that cannot be stripped.
inline std::uint32_t order(char32_t c) {
  return std::ranges::lower_bound(marks, c, {}, &Mark::mark)->order;
}

// Calls `take` with each character of the canonical decomposition of one that decomposes, in order,
// but for the strippable nonstarters.
template <typename Take>
void decompose(char32_t c, Take take) {
  constexpr char32_t hangul = 0xAC00, lead = 0x1100, vowel = 0x1161, tail = 0x11A7;
  if (c >= hangul && c < hangul + 11172) {
    take(lead + (c - hangul) / 588);
    take(vowel + (c - hangul) % 588 / 28);
    if ((c - hangul) % 28 != 0) take(tail + (c - hangul) % 28);
    return;
  }
  const std::uint32_t to = std::ranges::lower_bound(decompositions, c, {}, &Decomposition::from)->to;
  const std::uint32_t length = to >> 24, place = to & 0xFFFFFF;
  if (length == 1) return take(place);
  for (const char32_t part : pool.subspan(place, length)) take(part);
}

}  // namespace tightrope::unicode
