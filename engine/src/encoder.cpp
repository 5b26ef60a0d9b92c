// Reading an encoder from its file: every size is checked here, so that nothing after this has to.
#include "encoder.hpp"

#include <bit>

namespace tightrope {
namespace {

constexpr std::size_t kWidest = 16384;  // features of any row: the kernels keep one on the stack
constexpr std::size_t kMostLayers = 512;
constexpr std::size_t kLongest = 1 << 20;

void within(std::size_t value, std::size_t least, std::size_t most, const char* what) {
  if (value < least || value > most) refuse_format(std::string(what) + " is " + std::to_string(value));
}

// The section "<name>.linear".
struct LinearRecord {
  std::uint32_t in;
  std::uint32_t out;
  std::uint32_t integers;  // 1: codes by codes; 0: float arithmetic
  std::uint32_t rounded;
  std::uint32_t rotation;
  std::uint32_t group;  // inputs that share a scale, in float arithmetic on integer weights
  Activation activation;
  std::uint32_t paired;  // 1: no two neighbouring codes of one sign add up to more than 128
};

Preparation preparation(const Artefact& file, const std::string& name, const LinearRecord& record) {
  const std::size_t rotation = record.rotation;
  if (rotation != 0 && (!std::has_single_bit(rotation) || record.in % rotation != 0))
    refuse_format("the rotation of " + name + " is " + std::to_string(rotation));
  return {record.in, file.optional<float>(name + ".factor", record.in),
          file.optional<float>(name + ".offset", record.in), rotation};
}

Integers integers(const Artefact& file, const std::string& name, std::size_t in, std::size_t out, bool paired) {
  return {file.values<std::int8_t>(name + ".weight", product(in, out)),
          file.values<float>(name + ".scale", out),
          file.values<float>(name + ".bias", out),
          file.values<std::int32_t>(name + ".sums", out),
          in,
          out,
          paired};
}

Floats floats(const Artefact& file, const std::string& name, const LinearRecord& record, std::size_t out) {
  Floats found;
  found.in = record.in;
  found.out = out;
  found.bias = file.values<float>(name + ".bias", out);
  const Section weight = file.section(name + ".weight");
  found.panels = weight.bytes.data();
  found.element = weight.element;
  const std::size_t count = product(record.in, out);
  std::size_t wanted = 0;
  switch (weight.element) {
    case Element::float32: wanted = product(count, 4); break;
    case Element::float16: wanted = product(count, 2); break;
    case Element::int8: wanted = count; break;
    case Element::int4: wanted = count / 2; break;
    default: refuse_format("the weights of " + name + " are of an unknown kind");
  }
  if (weight.bytes.size() != wanted) refuse_format("the weights of " + name + " have another size");
  if (weight.element == Element::float32 || weight.element == Element::float16) return found;
  if (record.group == 0 || record.in % record.group != 0) refuse_format("the groups of " + name + " do not add up");
  found.group = record.group;
  const std::size_t scales = product(record.in / record.group, out);
  found.scales = file.values<float>(name + ".scale", scales);
  found.zeros = file.optional<float>(name + ".zero", scales);
  return found;
}

Linear linear(const Artefact& file, const std::string& name, std::size_t in, std::size_t out) {
  const auto& record = file.record<LinearRecord>(name + ".linear");
  if (record.in != in || record.out != out) refuse_format(name + " does not fit what comes before it");
  if (static_cast<std::uint32_t>(record.activation) > static_cast<std::uint32_t>(Activation::sigmoid))
    refuse_format("the activation of " + name + " is unknown");
  Linear found;
  found.preparation = preparation(file, name, record);
  found.out = out;
  found.activation = record.activation;
  found.rounded = record.rounded != 0;
  const std::size_t padded = round_up(out, kPanel);
  if (record.integers != 0) found.integers = integers(file, name, round_up(in, kBlock), padded, record.paired != 0);
  else found.floats = floats(file, name, record, padded);
  return found;
}

Norm norm(const Artefact& file, const std::string& name, std::size_t width) {
  return {file.values<float>(name + ".gain", width), file.values<float>(name + ".bias", width)};
}

struct LayerRecord {
  std::uint32_t heads;
  std::uint32_t inner;
};

Layer layer(const Artefact& file, const Config& config, std::size_t index) {
  const std::string name = std::to_string(index);
  const auto& record = file.record<LayerRecord>(name + ".layer");
  within(record.heads, 1, kWidest, "the number of heads");
  within(record.inner, 1, kWidest, "the inner width");
  const std::size_t width = product(record.heads, config.head_size);
  within(width, 1, kWidest / 3, "the width of attention");
  Layer found;
  found.heads = record.heads;
  if (file.has(name + ".qkv.linear")) {
    found.inputs.push_back(linear(file, name + ".qkv", config.hidden, 3 * width));
  } else {
    for (const char* part : {".query", ".key", ".value"})
      found.inputs.push_back(linear(file, name + part, config.hidden, width));
  }
  found.output = linear(file, name + ".output", width, config.hidden);
  found.up = linear(file, name + ".up", config.hidden, record.inner);
  found.down = linear(file, name + ".down", record.inner, config.hidden);
  found.attention_norm = norm(file, name + ".attention_norm", config.hidden);
  found.output_norm = norm(file, name + ".output_norm", config.hidden);
  return found;
}

struct TableRecord {
  std::uint32_t group;
  std::uint32_t half_scales;
};

Table table(const Artefact& file, const Config& config) {
  Table found;
  found.width = config.hidden;
  const std::size_t rows = config.vocabulary;
  const Section section = file.section("words");
  found.rows = section.bytes.data();
  found.element = section.element;
  switch (found.element) {
    case Element::float32: found.row_bytes = found.width * 4; break;
    case Element::float16: found.row_bytes = found.width * 2; break;
    case Element::int8: found.row_bytes = found.width; break;
    case Element::int6: found.row_bytes = found.width / 32 * 24; break;
    case Element::int4: found.row_bytes = found.width / 32 * 16; break;
    default: refuse_format("the vocabulary's table is of an unknown kind");
  }
  const bool packed = found.element == Element::int6 || found.element == Element::int4;
  if (packed && found.width % 32 != 0) refuse_format("the vocabulary's table cannot be packed");
  if (section.bytes.size() != product(rows, found.row_bytes)) refuse_format("the vocabulary's table has another size");
  if (found.element == Element::float32 || found.element == Element::float16) return found;
  const auto& record = file.record<TableRecord>("words.table");
  if (record.group == 0 || found.width % record.group != 0) refuse_format("the groups of the table do not add up");
  found.group = record.group;
  found.half_scales = record.half_scales != 0;
  const std::size_t scales = product(rows, found.width / record.group);
  if (found.half_scales) found.scales = file.values<std::uint16_t>("words.scale", scales);
  else found.scales = file.values<float>("words.scale", scales);
  found.zeros = file.optional<std::int8_t>("words.zero", scales);
  return found;
}

Config checked(const Config& config) {
  within(config.hidden, 1, kWidest, "the width");
  within(config.layers, 1, kMostLayers, "the number of layers");
  within(config.head_size, 1, kWidest, "the size of a head");
  within(config.vocabulary, 1, 1U << 30, "the vocabulary");
  within(config.max_length, 1, kLongest, "the longest text");
  within(config.types, 0, 1024, "the number of token types");
  within(static_cast<std::size_t>(config.pooling), 0, 3, "the pooling");
  within(config.tail, 0, 16, "the number of layers after the pooling");
  within(config.width, 1, kWidest, "the width of an answer");
  return config;
}

}  // namespace

Encoder::Encoder(const Artefact& file) : config_(checked(file.record<Config>("config"))) {
  words_ = table(file, config_);
  positions_ = file.values<float>("positions", product(config_.max_length, config_.hidden));
  if (config_.types != 0) types_ = file.values<float>("types", product(config_.types, config_.hidden));
  embedding_norm_ = norm(file, "embedding_norm", config_.hidden);
  for (std::size_t index = 0; index < config_.layers; ++index) layers_.push_back(layer(file, config_, index));
  std::size_t width = config_.hidden;
  for (std::size_t index = 0; index < config_.tail; ++index) {
    const std::string name = "tail." + std::to_string(index);
    const std::size_t out = file.record<LinearRecord>(name + ".linear").out;
    within(out, 1, kWidest, "the width after the pooling");
    tail_.push_back(linear(file, name, width, out));
    width = out;
  }
  if (width != config_.width) refuse_format("its answers have another width than it says");
}

void Encoder::check(const Batch& batch) const {
  for (std::size_t text = 0; text < batch.texts(); ++text) {
    const std::int64_t length = batch.offsets[text + 1] - batch.offsets[text];
    if (length < 1 || length > static_cast<std::int64_t>(config_.max_length))
      throw Error(Fault::argument,
                  "Row " + std::to_string(text) + " has " + std::to_string(length) + " tokens; the model reads 1 to " +
                      std::to_string(config_.max_length) + ".",
                  "Cut longer texts when they are tokenized.");
  }
  for (const std::int32_t id : batch.ids)
    if (id < 0 || id >= static_cast<std::int32_t>(config_.vocabulary))
      throw Error(Fault::argument,
                  "There is no token " + std::to_string(id) + "; ids go from 0 to " +
                      std::to_string(config_.vocabulary - 1) + ".",
                  "Use the tokenizer that belongs to the model.");
  for (const std::int32_t type : batch.types)
    if (type < 0 || (config_.types != 0 && type >= static_cast<std::int32_t>(config_.types)))
      throw Error(Fault::argument,
                  "There is no token type " + std::to_string(type) + "; the model has " +
                      std::to_string(config_.types) + ".",
                  "Use the tokenizer that belongs to the model.");
}

}  // namespace tightrope
