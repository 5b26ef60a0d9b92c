#include "model.hpp"

#include <algorithm>

#include "isa.hpp"

namespace tightrope {
namespace {

constexpr std::size_t kTokensAtOnce = 256;  // more are no faster and only take memory
constexpr std::size_t kFewest = 64;         // fewer are not worth a thread of their own

struct Piece {
  std::size_t first, last;  // texts
};

// Texts in the order given, in pieces of some tokens; a longer text is a piece of its own.
std::vector<Piece> pieces(const Batch& batch, std::size_t tokens) {
  std::vector<Piece> found;
  std::size_t first = 0;
  for (std::size_t text = 1; text < batch.texts(); ++text) {
    if (static_cast<std::size_t>(batch.offsets[text + 1] - batch.offsets[first]) <= tokens) continue;
    found.push_back({first, text});
    first = text;
  }
  found.push_back({first, batch.texts()});
  return found;
}

}  // namespace

// Nobody waits for the shelf: new memory does as well, and after a fork its lock may be a thread's that is not there.
std::unique_ptr<Workspace> Shelf::take() {
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock || kept_.empty()) return std::make_unique<Workspace>();
  std::unique_ptr<Workspace> memory = std::move(kept_.back());
  kept_.pop_back();
  return memory;
}

void Shelf::give(std::unique_ptr<Workspace> memory) {
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (lock && kept_.size() < most_) kept_.push_back(std::move(memory));
}

Model::Model(std::unique_ptr<Mapping> mapping, const Options& options)
    : mapping_(std::move(mapping)),
      artefact_(mapping_->bytes()),
      options_(options),
      kernels_(chosen()),
      shelf_(options.threads),
      crew_(options.threads, options.pinned) {
  if (artefact_.has("config")) encoder_.emplace(artefact_);
  if (artefact_.has("wordpiece")) tokenizer_.emplace(artefact_.section("wordpiece").bytes);
  if (encoder_ && tokenizer_ && tokenizer_->vocabulary() > encoder_->config().vocabulary)
    refuse_format("its tokenizer gives ids that its vocabulary lacks");
}

const Encoder& Model::encoder() const {
  if (!encoder_) throw Error(Fault::unsupported, "The file holds a tokenizer and no model.", "Open a model's file.");
  return *encoder_;
}

const WordPiece& Model::tokenizer() const {
  if (!tokenizer_)
    throw Error(Fault::unsupported, "The model's file holds no tokenizer that runs natively.",
                "Tokenize outside and give the ids to tightrope_run().");
  return *tokenizer_;
}

Tokens Model::tokenize(std::span<const std::string_view> texts, bool pairs, std::size_t max_length) const {
  const WordPiece& cutter = tokenizer();
  if (max_length < (pairs ? 3U : 2U))
    throw Error(Fault::argument, "A text of " + std::to_string(max_length) + " tokens has no room for its ends.",
                "Allow at least 3.");
  Tokens found;
  for (std::size_t text = 0; text < texts.size(); text += pairs ? 2 : 1) {
    const bool cut = pairs ? cutter.encode_pair(texts[text], texts[text + 1], max_length, found.ids, found.types)
                           : cutter.encode(texts[text], max_length, found.ids);
    found.cut += cut ? 1 : 0;
    found.offsets.push_back(static_cast<std::int64_t>(found.ids.size()));
  }
  return found;
}

void Model::run(const Batch& batch, float* out) {
  encoder().check(batch);
  if (batch.texts() == 0) return;
  const std::unique_lock<std::mutex> claim = crew_.claim();
  const std::size_t threads = claim ? crew_.threads() : 1;
  const std::size_t each = std::max(kFewest, (batch.ids.size() + threads - 1) / threads);
  const std::vector<Piece> parts = pieces(batch, std::min(kTokensAtOnce, each));
  if (threads > 1 && parts.size() > 1) {
    crew_.run(parts.size(), [&](std::size_t part, std::size_t) {
      run_piece(batch, parts[part].first, parts[part].last, nullptr, out);
    });
  } else {
    for (const Piece& piece : parts) run_piece(batch, piece.first, piece.last, threads > 1 ? &crew_ : nullptr, out);
  }
}

void Model::run_piece(const Batch& batch, std::size_t first, std::size_t last, Crew* crew, float* out) {
  std::vector<std::int64_t> offsets(last - first + 1);
  for (std::size_t text = first; text <= last; ++text) offsets[text - first] = batch.offsets[text] - batch.offsets[first];
  const auto start = static_cast<std::size_t>(batch.offsets[first]), count = static_cast<std::size_t>(offsets.back());
  const Batch some{batch.ids.subspan(start, count),
                   batch.types.empty() ? batch.types : batch.types.subspan(start, count), offsets};
  std::unique_ptr<Workspace> memory = shelf_.take();
  Pass(*encoder_, kernels_, options_.half_attention, crew, *memory).run(some, out + first * encoder_->config().width);
  shelf_.give(std::move(memory));
}

}  // namespace tightrope
