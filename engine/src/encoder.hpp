// A transformer encoder as the file holds it, and what it computes: token ids in, one row of numbers a text out.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "artefact.hpp"
#include "kernels/kernels.hpp"

namespace tightrope {

enum class Pooling : std::uint32_t { mean = 0, first = 1, max = 2, mean_sqrt_len = 3 };

// The section "config".
struct Config {
  std::uint32_t hidden;
  std::uint32_t layers;
  std::uint32_t head_size;
  std::uint32_t vocabulary;
  std::uint32_t max_length;
  std::uint32_t types;  // token types of pairs; 0 if the model takes none
  std::uint32_t scores;
  Pooling pooling;
  std::uint32_t normalize;
  std::uint32_t tail;  // linear layers after the pooling
  std::uint32_t width;
  float epsilon;
  std::uint32_t reserved[4];
};
static_assert(sizeof(Config) == 64);

// A linear layer with what is done to its input: either on integers, or in float.
struct Linear {
  Preparation preparation;
  bool rounded = false;  // the input is put on eight bits; on integers it always is
  std::optional<Integers> integers;
  Floats floats;
  std::size_t out = 0;  // features, padding left out
  Activation activation = Activation::identity;

  std::size_t panels() const { return (integers ? integers->out : floats.out) / kPanel; }
};

struct Norm {
  const float* gain = nullptr;
  const float* bias = nullptr;
};

struct Layer {
  std::size_t heads = 0;
  std::vector<Linear> inputs;  // one for query, key and value side by side, or one each
  Linear output, up, down;
  Norm attention_norm, output_norm;
};

// A batch of texts without padding: text i has ids [offsets[i], offsets[i + 1]).
struct Batch {
  std::span<const std::int32_t> ids;
  std::span<const std::int32_t> types;  // as many as ids, or none
  std::span<const std::int64_t> offsets;

  std::size_t texts() const { return offsets.size() - 1; }
};

class Encoder {
 public:
  explicit Encoder(const Artefact& file);

  const Config& config() const { return config_; }

  // Error(argument) for ids, types or lengths that the model does not have.
  void check(const Batch& batch) const;

 private:
  friend class Pass;

  Config config_;
  Table words_;
  const float* positions_ = nullptr;  // [max_length, hidden]
  const float* types_ = nullptr;      // [types, hidden]
  Norm embedding_norm_;
  std::vector<Layer> layers_;
  std::vector<Linear> tail_;
};

}  // namespace tightrope
