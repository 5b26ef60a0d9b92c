#include "wordpiece.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include "error.hpp"
#include "unicode.hpp"

namespace tightrope {

static_assert(std::endian::native == std::endian::little, "packed tokenizers are read where they lie");

namespace {

constexpr std::string_view magic = "TRPIECES";
constexpr std::uint32_t version = 1;
constexpr std::size_t header = 64;
constexpr std::uint32_t most_characters = 1000;  // of a word: the buffer of one lies on the stack
constexpr std::size_t most_added = 256;          // bytes of an added token: each place of a text is searched that far

// A unit of the trie: byte that leads here (8 bits), flags (2), payload (22: an id if leaf, else a base).
constexpr std::uint32_t ends = 1 << 8;   // a piece ends here and longer ones go on: its id is the unit at base ^ end
constexpr std::uint32_t leaf = 1 << 9;
constexpr int payload = 10;
constexpr std::uint32_t end = 0xFF;      // no byte of UTF-8

template <typename Number>
Number load(const std::byte* at) {
  Number value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

[[noreturn]] void broken(const std::string& what) {
  throw Error(Fault::format, "The packed tokenizer is broken: " + what + ".", "Make the bundle anew.");
}

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// The bytes of the character that begins here, or 0 if none does. RFC 3629: nothing overlong, no surrogates.
std::size_t length_at(std::string_view text, std::size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return 1;
  const std::size_t length = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  if (length == 0 || text.size() - at < length) return 0;
  const auto second = static_cast<unsigned char>(text[at + 1]);
  const unsigned low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const unsigned high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (second < low || second > high) return 0;
  const std::string_view rest = text.substr(at + 2, length - 2);
  return std::ranges::all_of(rest, is_continuation) ? length : 0;
}

void require_utf8(std::string_view text) {
  constexpr std::uint64_t high_bits = 0x8080808080808080;
  for (std::size_t at = 0; at < text.size();) {
    std::uint64_t eight;
    if (text.size() - at >= sizeof eight) {
      std::memcpy(&eight, text.data() + at, sizeof eight);
      if ((eight & high_bits) == 0) {
        at += sizeof eight;
        continue;
      }
    }
    const std::size_t length = length_at(text, at);
    if (length == 0)
      throw Error(Fault::argument, "The text is not UTF-8 at byte " + std::to_string(at) + ".", "Give UTF-8.");
    at += length;
  }
}

// One character of valid UTF-8, and how many bytes it takes.
struct Decoded {
  char32_t character;
  std::size_t length;
};

Decoded decode(const char* text) {
  const auto byte = [text](int i) { return static_cast<char32_t>(static_cast<unsigned char>(text[i])); };
  const auto tail = [byte](int i) { return byte(i) & 0x3F; };
  if (byte(0) < 0x80) return {byte(0), 1};
  if (byte(0) < 0xE0) return {(byte(0) & 0x1F) << 6 | tail(1), 2};
  if (byte(0) < 0xF0) return {(byte(0) & 0x0F) << 12 | tail(1) << 6 | tail(2), 3};
  return {(byte(0) & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4};
}

// A word in the making: normalised, as UTF-8. Of one longer than any that is cut into pieces only the length is kept.
class Word {
 public:
  explicit Word(std::size_t limit) : limit_(limit) {}

  bool empty() const { return characters_ == 0; }
  bool too_long() const { return characters_ > limit_; }
  std::string_view text() const { return {bytes_.data(), size_}; }
  void clear() { size_ = characters_ = settled_ = 0; }
  void settle() { settled_ = size_; }  // marks that follow do not move before what is there

  void push_ascii(std::uint8_t c) {
    if (++characters_ > limit_) return;
    bytes_[size_++] = static_cast<char>(c);
    settled_ = size_;
  }

  void push(char32_t c) {
    if (++characters_ > limit_) return;
    size_ += write(c, size_);
    settled_ = size_;
  }

  // Canonical ordering: a mark moves before the marks of higher classes right before it.
  void push_mark(char32_t c) {
    if (++characters_ > limit_) return;
    std::size_t place = size_;
    while (place > settled_) {
      std::size_t before = place - 1;
      while (is_continuation(bytes_[before])) --before;
      if (unicode::order(decode(&bytes_[before]).character) <= unicode::order(c)) break;
      place = before;
    }
    const std::size_t length = write(c, size_);
    std::rotate(&bytes_[place], &bytes_[size_], &bytes_[size_ + length]);
    size_ += length;
  }

 private:
  std::size_t write(char32_t c, std::size_t at) {
    constexpr std::array<char32_t, 5> lead = {0, 0, 0xC0, 0xE0, 0xF0};
    const std::size_t length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (std::size_t i = length - 1; i > 0; --i, c >>= 6) bytes_[at + i] = static_cast<char>(0x80 | (c & 0x3F));
    bytes_[at] = static_cast<char>(lead[length] | c);
    return length;
  }

  std::array<char, 4 * most_characters + 4> bytes_;  // not cleared: only what was written is read
  std::size_t limit_, size_ = 0, characters_ = 0, settled_ = 0;
};

// Ids appended to a vector, all of them counted and the first `keep` kept.
class Ids {
 public:
  Ids(std::vector<std::int32_t>& out, std::size_t keep) : out_(out), start_(out.size()), keep_(keep) {}

  std::size_t count() const { return count_; }
  bool full() const { return count_ > keep_; }

  void push(std::uint32_t id) {
    if (count_++ < keep_) out_.push_back(static_cast<std::int32_t>(id));
  }

  void take_back(std::size_t count) {
    count_ = count;
    out_.resize(start_ + std::min(count, keep_));
  }

 private:
  std::vector<std::int32_t>& out_;
  std::size_t start_, keep_, count_ = 0;
};

}  // namespace

Trie::Match Trie::longest(std::uint32_t root, std::string_view text) const {
  Match best;
  std::uint32_t base = root;
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::uint32_t node = unit(base ^ byte);
    if ((node & 0xFF) != byte) break;
    ++i;
    base = node >> payload;
    if (node & leaf) return {i, base};
    if (node & ends) best = {i, unit(base ^ end) >> payload};
  }
  return best;
}

bool Trie::begins(std::uint32_t root, unsigned char byte) const { return (unit(root ^ byte) & 0xFF) == byte; }

std::uint32_t Trie::unit(std::uint32_t at) const {
  if (at >= count_) broken("unit " + std::to_string(at) + " is used, of " + std::to_string(count_));
  return load<std::uint32_t>(units_ + std::size_t{at} * sizeof(std::uint32_t));
}

WordPiece::WordPiece(std::span<const std::byte> packed) {
  if (packed.size() < header) broken("it has " + std::to_string(packed.size()) + " bytes");
  if (std::memcmp(packed.data(), magic.data(), magic.size()) != 0) broken("it begins like another kind of file");
  const auto field = [packed](std::size_t at) { return load<std::uint32_t>(packed.data() + at); };
  if (field(8) != version)
    throw Error(Fault::unsupported, "The packed tokenizer is of version " + std::to_string(field(8)) + ".",
                "Use a bundle and an engine of the same release.");
  const std::uint32_t flags = field(12), units = field(36);
  if (flags > 15) broken("its flags are " + std::to_string(flags));
  clean_ = flags & 1, ideographs_ = flags & 2, strip_ = flags & 4, lower_ = flags & 8;
  cls_ = field(16), sep_ = field(20), unk_ = field(24), vocabulary_ = field(28), most_characters_ = field(32);
  if (std::max({cls_, sep_, unk_}) >= vocabulary_ || vocabulary_ > 1u << (32 - payload))
    broken("its vocabulary is " + std::to_string(vocabulary_));
  if (most_characters_ < 1 || most_characters_ > most_characters)
    broken("its words have up to " + std::to_string(most_characters_) + " characters");
  if (units % 256 != 0 || packed.size() - header != std::size_t{units} * sizeof(std::uint32_t))
    broken("it has " + std::to_string(packed.size()) + " bytes for " + std::to_string(units) + " units");
  if (field(52) != 0 || field(56) != 0 || field(60) != 0) broken("a field that must be 0 is not");
  trie_ = Trie(packed.data() + header, units);
  whole_ = field(40), inner_ = field(44), added_ = field(48);
  if (std::max({whole_, inner_, added_}) >= units) broken("a root lies beyond the last unit");
  for (unsigned byte = 0; byte < 256; ++byte)
    begins_added_[byte] = trie_.begins(added_, static_cast<unsigned char>(byte)) && byte != end;
  prepare_ascii();
}

void WordPiece::prepare_ascii() {
  for (char32_t c = 0; c < ascii_.size(); ++c) {
    const unicode::Traits traits = unicode::traits(c);
    auto& becomes = ascii_[c];
    becomes = static_cast<std::uint8_t>(lower_ && traits & unicode::capital ? unicode::small(c) : c);
    if (traits & unicode::punctuation) becomes |= alone;
    if (traits & unicode::space) becomes = ' ';
    if (clean_ && traits & unicode::removed) becomes = nothing;
  }
}

// One text on its way to ids: characters are normalised into a word, and a word that ends is cut into pieces.
class Cutter {
 public:
  Cutter(const WordPiece& tokenizer, Ids& ids) : of_(tokenizer), ids_(ids), word_(tokenizer.most_characters_) {}

  // Added tokens are looked for first, as they stand; what lies between two is normalised by itself.
  // With `early`, stops where all further ids would only be counted.
  void cut(std::string_view text, bool early) {
    for (std::size_t at = 0; at < text.size() && !(early && ids_.full());) {
      const auto byte = static_cast<unsigned char>(text[at]);
      if (of_.begins_added_[byte]) {
        if (const Trie::Match match = of_.trie_.longest(of_.added_, text.substr(at, most_added)); match.length > 0) {
          end_word();
          push(match.id);
          at += match.length;
          continue;
        }
      }
      if (byte < 0x80) {
        ascii(byte);
        ++at;
      } else {
        const Decoded next = decode(text.data() + at);
        character(next.character);
        at += next.length;
      }
    }
    end_word();
  }

 private:
  void ascii(unsigned char byte) {
    const std::uint8_t becomes = of_.ascii_[byte];
    if (becomes == ' ') return end_word();
    if (becomes < WordPiece::alone) return word_.push_ascii(becomes);
    if (becomes == WordPiece::nothing) return;
    end_word();
    word_.push_ascii(becomes & ~WordPiece::alone);
    end_word();
  }

  // The order of the steps is that of BertNormalizer: clean, set ideographs apart, decompose and strip, lower.
  void character(char32_t c) {
    const unicode::Traits traits = unicode::traits(c);
    if (of_.clean_ && traits & unicode::removed) return;
    const bool apart = of_.ideographs_ && traits & unicode::ideograph;
    if (apart) end_word();
    if (of_.strip_ && traits & unicode::decomposes)
      unicode::decompose(c, [this](char32_t part) { decomposed(part, unicode::traits(part)); });
    else
      decomposed(c, traits);
    if (apart) end_word();
  }

  void decomposed(char32_t c, unicode::Traits traits) {
    if (of_.strip_ && traits & unicode::nonspacing) {
      if (!(traits & unicode::nonstarter)) word_.settle();
    } else if (of_.lower_ && c == unicode::dotted_capital_i) {
      word_.push('i');
      word_.push(0x307);
    } else if (of_.lower_ && traits & unicode::capital) {
      word_.push(unicode::small(c));
    } else {
      normalised(c, traits);
    }
  }

  void normalised(char32_t c, unicode::Traits traits) {
    if (traits & unicode::space) return end_word();
    if (traits & unicode::punctuation) {
      end_word();
      word_.push(c);
      return end_word();
    }
    if (of_.strip_ && traits & unicode::nonstarter) return word_.push_mark(c);
    word_.push(c);
  }

  void end_word() {
    if (word_.empty()) return;
    if (word_.too_long())
      push(of_.unk_);
    else
      cut_word(word_.text());
    word_.clear();
  }

  // The longest piece first, again and again; a word that cannot be cut to its end is one unknown token.
  void cut_word(std::string_view rest) {
    const std::size_t before = ids_.count();
    for (std::uint32_t root = of_.whole_; !rest.empty(); root = of_.inner_) {
      const Trie::Match match = of_.trie_.longest(root, rest);
      if (match.length == 0) {
        ids_.take_back(before);
        return push(of_.unk_);
      }
      push(match.id);
      rest.remove_prefix(match.length);
    }
  }

  void push(std::uint32_t id) {
    if (id >= of_.vocabulary_) broken("id " + std::to_string(id) + " is beyond " + std::to_string(of_.vocabulary_));
    ids_.push(id);
  }

  const WordPiece& of_;
  Ids& ids_;
  Word word_;
};

namespace {

void require_room(std::size_t max_length, std::size_t special) {
  if (max_length >= special) return;
  throw Error(Fault::argument, "The limit is " + std::to_string(max_length) + " tokens.",
              "Give at least " + std::to_string(special) + ", for the special tokens alone are as many.");
}

// How many ids of two parts stay, as `tokenizers` shares out the room: the shorter part is cut only if both must be,
// and then the longer one is left the odd token.
std::pair<std::size_t, std::size_t> share(std::size_t first, std::size_t second, std::size_t room) {
  if (first + second <= room) return {first, second};
  const std::size_t shorter = std::min(first, second);
  const bool both = shorter > room - std::min(shorter, room);
  const std::size_t small = both ? room / 2 : shorter;
  return first > second ? std::pair{room - small, small} : std::pair{small, room - small};
}

}  // namespace

bool WordPiece::encode(std::string_view text, std::size_t max_length, std::vector<std::int32_t>& ids) const {
  require_room(max_length, 2);
  require_utf8(text);
  ids.push_back(static_cast<std::int32_t>(cls_));
  Ids kept(ids, max_length - 2);
  Cutter(*this, kept).cut(text, true);
  ids.push_back(static_cast<std::int32_t>(sep_));
  return kept.full();
}

bool WordPiece::encode_pair(std::string_view first, std::string_view second, std::size_t max_length,
                            std::vector<std::int32_t>& ids, std::vector<std::int32_t>& types) const {
  require_room(max_length, 3);
  require_utf8(first);
  require_utf8(second);
  const std::size_t room = max_length - 3, start = ids.size();
  ids.push_back(static_cast<std::int32_t>(cls_));
  Ids a(ids, room);
  Cutter(*this, a).cut(first, false);
  const std::size_t middle = ids.size();
  Ids b(ids, room);
  Cutter(*this, b).cut(second, false);
  const auto [kept_a, kept_b] = share(a.count(), b.count(), room);
  ids.resize(middle + kept_b);
  const auto cut_from = ids.begin() + static_cast<std::ptrdiff_t>(start + 1 + kept_a);
  ids.erase(cut_from, ids.begin() + static_cast<std::ptrdiff_t>(middle));
  ids.insert(ids.begin() + static_cast<std::ptrdiff_t>(start + 1 + kept_a), static_cast<std::int32_t>(sep_));
  ids.push_back(static_cast<std::int32_t>(sep_));
  types.insert(types.end(), kept_a + 2, 0);
  types.insert(types.end(), kept_b + 1, 1);
  return kept_a < a.count() || kept_b < b.count();
}

}  // namespace tightrope
