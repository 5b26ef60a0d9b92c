// An open model: the mapped file, what it holds, and who works on it.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "artefact.hpp"
#include "crew.hpp"
#include "encoder.hpp"
#include "pass.hpp"
#include "wordpiece.hpp"

namespace tightrope {

// Working memory that is not in use. Some is kept for the next call; what a crowd of threads needed at once is not.
class Shelf {
 public:
  explicit Shelf(std::size_t most) : most_(most) {}
  std::unique_ptr<Workspace> take();
  void give(std::unique_ptr<Workspace> memory);

 private:
  const std::size_t most_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> kept_;
};

struct Options {
  std::size_t threads = 1;
  bool pinned = false;
  bool half_attention = false;
};

// Token ids of several texts, one after the other.
struct Tokens {
  std::vector<std::int32_t> ids, types;  // types only of pairs
  std::vector<std::int64_t> offsets{0};
  std::size_t cut = 0;  // texts that were longer
};

class Model {
 public:
  Model(std::unique_ptr<Mapping> mapping, const Options& options);

  const Encoder& encoder() const;      // Error(unsupported) if the file holds none
  const WordPiece& tokenizer() const;  // the same
  bool encodes() const { return encoder_.has_value(); }
  bool tokenizes() const { return tokenizer_.has_value(); }

  Tokens tokenize(std::span<const std::string_view> texts, bool pairs, std::size_t max_length) const;
  // Rows [texts, width], in the order given.
  void run(const Batch& batch, float* out);

 private:
  void run_piece(const Batch& batch, std::size_t first, std::size_t last, Crew* crew, float* out);

  const std::unique_ptr<Mapping> mapping_;
  const Artefact artefact_;
  const Options options_;
  const Kernels& kernels_;
  std::optional<Encoder> encoder_;
  std::optional<WordPiece> tokenizer_;
  Shelf shelf_;
  Crew crew_;
};

}  // namespace tightrope
