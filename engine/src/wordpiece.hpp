// Text → token ids, exactly as `tokenizers` does it for a BERT tokenizer: normaliser, words, longest pieces, [CLS] and
// [SEP]. The tokenizer is a packed file used where it lies; docs/formats/wordpiece.md is its format.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace tightrope {

// A double array of pieces: every node's children are found at its base ^ the byte that leads to them.
class Trie {
 public:
  struct Match {
    std::size_t length = 0;  // in bytes; 0 if no piece begins the text
    std::uint32_t id = 0;
  };

  Trie() = default;
  Trie(const std::byte* units, std::uint32_t count) : units_(units), count_(count) {}

  // The longest piece under this root that the text begins with. Throws Error(Fault::format) if a base leads outside.
  Match longest(std::uint32_t root, std::string_view text) const;
  bool begins(std::uint32_t root, unsigned char byte) const;

 private:
  std::uint32_t unit(std::uint32_t at) const;

  const std::byte* units_ = nullptr;
  std::uint32_t count_ = 0;
};

class WordPiece {
 public:
  // A view over packed bytes, which must outlive it. Every size and offset is checked before it is used;
  // throws Error(Fault::format) here, or from encode where only a text leads to what is wrong.
  explicit WordPiece(std::span<const std::byte> packed);

  // Appends the ids of one text, special tokens included, at most max_length of them; at least 2. Returns whether
  // anything was cut. Invalid UTF-8 throws Error(Fault::argument) before anything is appended.
  bool encode(std::string_view text, std::size_t max_length, std::vector<std::int32_t>& ids) const;

  // [CLS] first [SEP] second [SEP] with types 0…0 1…1; the longer part is cut first. max_length is at least 3.
  bool encode_pair(std::string_view first, std::string_view second, std::size_t max_length,
                   std::vector<std::int32_t>& ids, std::vector<std::int32_t>& types) const;

  std::size_t vocabulary() const { return vocabulary_; }  // highest id + 1

 private:
  friend class Cutter;

  // What becomes of an ASCII character: itself or its small letter, with `alone` if it is a word of its own,
  // ' ' between words, or `nothing`.
  static constexpr std::uint8_t alone = 0x80, nothing = 0xFF;
  void prepare_ascii();

  Trie trie_;
  std::uint32_t whole_ = 0, inner_ = 0, added_ = 0;  // the roots: pieces that begin a word, that go on, added tokens
  std::uint32_t vocabulary_ = 0, cls_ = 0, sep_ = 0, unk_ = 0, most_characters_ = 0;
  bool clean_ = false, ideographs_ = false, strip_ = false, lower_ = false;
  std::array<std::uint8_t, 128> ascii_{};
  std::array<bool, 256> begins_added_{};
};

}  // namespace tightrope
