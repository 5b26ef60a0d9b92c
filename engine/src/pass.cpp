#include "pass.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tightrope {
namespace {

constexpr std::size_t kRowsAtOnce = 16;   // of a part: a whole tile, so that no two threads write to one line
constexpr std::size_t kPanelsAtOnce = 6;  // of a part: whole tiles of every instruction set

std::size_t width_of(const Layer& layer) { return layer.output.preparation.width; }

// Floats between rows of what a layer's inputs give: side by side, or one after the other.
std::size_t input_stride(const Layer& layer) { return layer.inputs.front().panels() * kPanel; }

bool is_prepared(const Linear& linear) {
  const Preparation& how = linear.preparation;
  return linear.rounded || how.factor != nullptr || how.offset != nullptr || how.rotation > 1;
}

}  // namespace

template <class Work>
void Pass::share(std::size_t parts, const Work& work) {
  if (crew_ != nullptr && parts > 1) {
    crew_->run(parts, work);
  } else {
    for (std::size_t part = 0; part < parts; ++part) work(part, 0);
  }
}

template <class Work>
void Pass::by_rows(std::size_t rows, const Work& work) {
  if (crew_ == nullptr) return work(std::size_t{0}, rows);
  share((rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](std::size_t part, std::size_t) {
    work(part * kRowsAtOnce, std::min(rows, (part + 1) * kRowsAtOnce));
  });
}

void Pass::run(const Batch& batch, float* out) {
  make_room(batch);
  embed(batch);
  const auto& layers = encoder_.layers_;
  for (std::size_t index = 0; index < layers.size(); ++index)
    layer(layers[index], index + 1 < layers.size() ? &layers[index + 1] : nullptr, batch);
  pool(batch);
  finish(batch.texts(), out);
}

void Pass::make_room(const Batch& batch) {
  const Config& config = encoder_.config_;
  tokens_ = batch.ids.size();
  stride_ = round_up(config.hidden, kPanel);
  const std::size_t rows = round_up(std::max(tokens_, batch.texts()), kRows);
  std::size_t wide = stride_, in = round_up(config.hidden, kBlock), attention = 0, longest = 0;
  for (std::size_t text = 0; text < batch.texts(); ++text)
    longest = std::max<std::size_t>(longest, static_cast<std::size_t>(batch.offsets[text + 1] - batch.offsets[text]));
  for (const Layer& layer : encoder_.layers_) {
    wide = std::max({wide, input_stride(layer) * layer.inputs.size(), layer.up.panels() * kPanel});
    in = std::max({in, round_up(width_of(layer), kBlock), round_up(layer.down.preparation.width, kBlock)});
  }
  answer_stride_ = stride_;
  for (const Linear& linear : encoder_.tail_) {
    answer_stride_ = std::max(answer_stride_, linear.panels() * kPanel);
    in = std::max(in, round_up(linear.preparation.width, kBlock));
  }
  attention = halves_ ? kernels_.half_attention_bytes(longest, config.head_size)
                      : kernels_.attention_bytes(longest, config.head_size);
  attention_bytes_ = round_up(attention, kAlignment);
  hidden_ = memory_.hidden.of<float>(rows * stride_);
  sums_ = memory_.sums.of<float>(rows * stride_);
  context_ = memory_.context.of<float>(rows * in);
  wide_ = memory_.wide.of<float>(rows * wide);
  codes_ = memory_.codes.of<std::int8_t>(rows * in);
  floats_ = memory_.floats.of<float>(rows * in);
  scales_ = memory_.scales.of<float>(rows);
  answers_ = memory_.answers.of<float>(2 * batch.texts() * answer_stride_);
  attention_ = memory_.attention.of<std::byte>(attention_bytes_ * (crew_ ? crew_->threads() : 1));
}

void Pass::embed(const Batch& batch) {
  const std::size_t width = encoder_.config_.hidden;
  std::size_t text = 0;
  for (std::size_t row = 0; row < tokens_; ++row) {
    while (static_cast<std::size_t>(batch.offsets[text + 1]) <= row) ++text;
    const std::size_t position = row - static_cast<std::size_t>(batch.offsets[text]);
    float* to = sums_ + row * stride_;
    std::memcpy(to, encoder_.positions_ + position * width, width * sizeof(float));
    kernels_.gather(encoder_.words_, static_cast<std::size_t>(batch.ids[row]), to);
    if (encoder_.types_ == nullptr) continue;
    const std::size_t type = batch.types.empty() ? 0 : static_cast<std::size_t>(batch.types[row]);
    const float* types = encoder_.types_ + type * width;
    for (std::size_t i = 0; i < width; ++i) to[i] += types[i];
  }
  by_rows(tokens_, [&](std::size_t first, std::size_t last) {
    normalize(encoder_.embedding_norm_, sums_, first, last);
    if (!encoder_.layers_.empty()) prepare(encoder_.layers_.front().inputs.front(), hidden_, stride_, first, last);
  });
}

void Pass::layer(const Layer& layer, const Layer* next, const Batch& batch) {
  const std::size_t context_stride = round_up(width_of(layer), kPanel), inner = layer.up.panels() * kPanel;
  project(layer);
  attend(layer, batch);
  by_rows(tokens_, [&](std::size_t first, std::size_t last) {
    prepare(layer.output, context_, context_stride, first, last);
  });
  multiply(layer.output, context_, context_stride, tokens_, {sums_, stride_, Activation::identity, hidden_});
  by_rows(tokens_, [&](std::size_t first, std::size_t last) {
    normalize(layer.attention_norm, sums_, first, last);
    prepare(layer.up, hidden_, stride_, first, last);
  });
  multiply(layer.up, hidden_, stride_, tokens_, {wide_, inner, layer.up.activation, nullptr});
  by_rows(tokens_, [&](std::size_t first, std::size_t last) { prepare(layer.down, wide_, inner, first, last); });
  multiply(layer.down, wide_, inner, tokens_, {sums_, stride_, Activation::identity, hidden_});
  by_rows(tokens_, [&](std::size_t first, std::size_t last) {
    normalize(layer.output_norm, sums_, first, last);
    if (next != nullptr) prepare(next->inputs.front(), hidden_, stride_, first, last);
  });
}

// Query, key and value; the first of the inputs was prepared with the rows before it.
void Pass::project(const Layer& layer) {
  const std::size_t stride = input_stride(layer);
  for (std::size_t part = 0; part < layer.inputs.size(); ++part) {
    const Linear& linear = layer.inputs[part];
    if (part > 0)
      by_rows(tokens_, [&](std::size_t first, std::size_t last) { prepare(linear, hidden_, stride_, first, last); });
    multiply(linear, hidden_, stride_, tokens_, {wide_ + part * tokens_ * stride, stride, Activation::identity, nullptr});
  }
}

void Pass::attend(const Layer& layer, const Batch& batch) {
  const std::size_t width = width_of(layer), size = encoder_.config_.head_size, stride = input_stride(layer);
  const std::size_t apart = layer.inputs.size() == 1 ? width : tokens_ * stride;
  const std::size_t context_stride = round_up(width, kPanel);
  share(batch.texts() * layer.heads, [&](std::size_t part, std::size_t worker) {
    const std::size_t text = part / layer.heads, feature = part % layer.heads * size;
    const auto first = static_cast<std::size_t>(batch.offsets[text]);
    Head head;
    head.query = wide_ + first * stride + feature;
    head.key = head.query + apart;
    head.value = head.key + apart;
    head.stride = stride;
    head.context = context_ + first * context_stride + feature;
    head.context_stride = context_stride;
    head.length = static_cast<std::size_t>(batch.offsets[text + 1]) - first;
    head.size = size;
    head.scale = 1.0f / std::sqrt(static_cast<float>(size));
    (halves_ ? kernels_.attend_halves : kernels_.attend)(head, attention_ + worker * attention_bytes_);
  });
}

void Pass::normalize(const Norm& norm, const float* x, std::size_t first, std::size_t last) {
  kernels_.normalize(x, stride_, first, last, encoder_.config_.hidden, norm.gain, norm.bias, encoder_.config_.epsilon,
                     hidden_);
}

void Pass::prepare(const Linear& linear, const float* x, std::size_t stride, std::size_t first, std::size_t last) {
  const Preparation& how = linear.preparation;
  if (linear.integers) {
    kernels_.quantize(x, stride, how, first, last, codes_, scales_, linear.integers->in);
  } else if (is_prepared(linear)) {
    kernels_.prepare(x, stride, how, first, last, linear.rounded, floats_, round_up(how.width, kPanel));
  }
}

void Pass::multiply(const Linear& linear, const float* x, std::size_t stride, std::size_t rows, Output out) {
  const std::size_t panels = linear.panels(), at_once = crew_ ? kPanelsAtOnce : panels;
  share((panels + at_once - 1) / at_once, [&](std::size_t part, std::size_t) {
    const std::size_t first = part * at_once, last = std::min(panels, first + at_once);
    if (linear.integers) {
      kernels_.multiply({codes_, scales_, rows, linear.integers->in}, *linear.integers, first, last, out);
    } else if (is_prepared(linear)) {
      kernels_.multiply_floats(floats_, round_up(linear.preparation.width, kPanel), rows, linear.floats, first, last,
                               out);
    } else {
      kernels_.multiply_floats(x, stride, rows, linear.floats, first, last, out);
    }
  });
}

void Pass::pool(const Batch& batch) {
  const Config& config = encoder_.config_;
  for (std::size_t text = 0; text < batch.texts(); ++text) {
    const auto first = static_cast<std::size_t>(batch.offsets[text]);
    const auto last = static_cast<std::size_t>(batch.offsets[text + 1]);
    float* to = answers_ + text * answer_stride_;
    std::memcpy(to, hidden_ + first * stride_, stride_ * sizeof(float));
    if (config.pooling == Pooling::first) continue;
    for (std::size_t row = first + 1; row < last; ++row) {
      const float* from = hidden_ + row * stride_;
      if (config.pooling == Pooling::max)
        for (std::size_t i = 0; i < stride_; ++i) to[i] = std::max(to[i], from[i]);
      else
        for (std::size_t i = 0; i < stride_; ++i) to[i] += from[i];
    }
    if (config.pooling == Pooling::max) continue;
    const auto count = static_cast<float>(last - first);
    const float share = config.pooling == Pooling::mean ? 1.0f / count : 1.0f / std::sqrt(count);
    for (std::size_t i = 0; i < stride_; ++i) to[i] *= share;
  }
}

// The layers after the pooling, unit length if the model wants it, and the answers without padding.
void Pass::finish(std::size_t texts, float* out) {
  const Config& config = encoder_.config_;
  float *from = answers_, *to = answers_ + texts * answer_stride_;
  for (const Linear& linear : encoder_.tail_) {
    prepare(linear, from, answer_stride_, 0, texts);
    multiply(linear, from, answer_stride_, texts, {to, answer_stride_, linear.activation, nullptr});
    std::swap(from, to);
  }
  for (std::size_t text = 0; text < texts; ++text, from += answer_stride_) {
    float factor = 1;
    if (config.normalize != 0) {
      float squares = 0;
      for (std::size_t i = 0; i < config.width; ++i) squares += from[i] * from[i];
      factor = 1.0f / std::max(std::sqrt(squares), 1e-12f);
    }
    for (std::size_t i = 0; i < config.width; ++i) out[text * config.width + i] = from[i] * factor;
  }
}

}  // namespace tightrope
