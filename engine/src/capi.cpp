// The C interface: handles to open models, and every failure as a status with two lines of text.
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <new>
#include <unordered_map>

#include "isa.hpp"
#include "model.hpp"
#include "scan.hpp"
#include "tightrope.h"

#ifndef TIGHTROPE_VERSION
#define TIGHTROPE_VERSION "0"
#endif

namespace tightrope {
namespace {

thread_local std::string last_error;

// Two lines from their parts. Where even those find no memory, the status has to say it all.
tightrope_status failed(Fault fault, std::initializer_list<std::string_view> parts) {
  try {
    last_error.clear();
    for (const std::string_view part : parts) last_error += part;
  } catch (const std::bad_alloc&) {
    last_error.clear();
  }
  return static_cast<tightrope_status>(fault);
}

// Runs `act`; nothing it throws leaves the library.
template <class Act>
tightrope_status guarded(Act&& act) {
  try {
    act();
    return TIGHTROPE_OK;
  } catch (const Error& error) {
    return failed(error.fault, {error.what(), "\n", error.hint});
  } catch (const std::bad_alloc&) {
    return failed(Fault::memory, {"There is not enough memory.\nGive fewer or shorter texts, or close a model."});
  } catch (const std::exception& error) {
    return failed(Fault::unsupported,
                  {"The system refused: ", error.what(), ".\nOpen the model with fewer threads."});
  }
}

// Handles count up and never come back, so one that was closed cannot be mistaken for another. A call holds on to its
// model: closing takes the handle away, and the last call under way gives the memory back.
class Handles {
 public:
  tightrope_model add(std::shared_ptr<Model> model) {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_.emplace(++last_, std::move(model));
    return last_;
  }

  std::shared_ptr<Model> at(tightrope_model handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = open_.find(handle);
    if (found == open_.end()) refuse_closed();
    return found->second;
  }

  std::shared_ptr<Model> take(tightrope_model handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto taken = open_.extract(handle);
    if (taken.empty()) refuse_closed();
    return std::move(taken.mapped());
  }

  // A fork takes only the thread that forks: what another holds just then would stay locked in the child for good.
  void hold() { mutex_.lock(); }
  void release() { mutex_.unlock(); }

 private:
  [[noreturn]] static void refuse_closed() { throw Error(Fault::closed, "The model is closed.", "Open it again."); }

  std::mutex mutex_;
  std::unordered_map<tightrope_model, std::shared_ptr<Model>> open_;
  tightrope_model last_ = 0;
};

Handles& handles() {
  static Handles* const all = [] {
    pthread_atfork([] { handles().hold(); }, [] { handles().release(); }, [] { handles().release(); });
    return new Handles();  // never destroyed: threads may outlive main
  }();
  return *all;
}

[[noreturn]] void refuse_argument(const std::string& what) {
  throw Error(Fault::argument, what, "See tightrope.h for what the call takes.");
}

Options read_options(const tightrope_options* given) {
  Options options;
  if (given == nullptr) return options;
  if (given->size != sizeof(tightrope_options)) refuse_argument("The options are of another version of tightrope.h.");
  if (given->threads > 1024) refuse_argument(std::to_string(given->threads) + " threads are more than 1024.");
  options.threads = given->threads == 0 ? 1 : given->threads;
  options.pinned = given->pinned != 0;
  options.half_attention = given->half_attention != 0;
  return options;
}

void open_descriptor(int descriptor, const tightrope_options* options, tightrope_model* model) {
  if (model == nullptr) refuse_argument("There is no place for the model.");
  *model = 0;
  const Options read = read_options(options);
  *model = handles().add(std::make_shared<Model>(std::make_unique<Mapping>(descriptor), read));
}

class Descriptor {
 public:
  // O_NONBLOCK: opening a pipe must not wait for who writes to it.
  explicit Descriptor(const char* path) : number(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (number < 0)
      throw Error(Fault::file, std::string(path) + " cannot be opened: " + std::strerror(errno) + ".",
                  "Give the path of a .tightrope file that this user may read.");
  }
  ~Descriptor() { close(number); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const int number;
};

constexpr std::size_t kMostRows = std::size_t{1} << 48;

// `count` rows of one text each, or of two.
std::vector<std::string_view> views(const char* const* texts, const std::size_t* sizes, std::size_t count, bool pairs) {
  if (count > kMostRows) refuse_argument(std::to_string(count) + " rows are more than any memory holds.");
  if (count != 0 && texts == nullptr) refuse_argument("There are no texts.");
  count *= pairs ? 2 : 1;
  std::vector<std::string_view> found(count);
  for (std::size_t text = 0; text < count; ++text) {
    if (texts[text] == nullptr) refuse_argument("Text " + std::to_string(text) + " is NULL.");
    found[text] = sizes != nullptr ? std::string_view(texts[text], sizes[text]) : std::string_view(texts[text]);
  }
  return found;
}

void answer(tightrope_model handle, const char* const* texts, const std::size_t* sizes, std::size_t count, bool pairs,
            float* out, std::size_t* cut) {
  const std::shared_ptr<Model> model = handles().at(handle);
  if ((model->encoder().config().scores != 0) != pairs)
    refuse_argument(pairs ? "The model embeds texts; it does not score pairs." : "The model scores pairs of texts.");
  const std::vector<std::string_view> given = views(texts, sizes, count, pairs);
  if (count != 0 && out == nullptr) refuse_argument("There is no place for the answers.");
  const Tokens tokens = model->tokenize(given, pairs, model->encoder().config().max_length);
  model->run({tokens.ids, tokens.types, tokens.offsets}, out);
  if (cut != nullptr) *cut = tokens.cut;
}

void tokenize(tightrope_model handle, std::span<const std::string_view> texts, bool pairs, std::size_t max_length,
              std::int32_t* ids, std::int32_t* types, std::size_t capacity, std::int64_t* offsets, std::size_t* cut) {
  if (offsets == nullptr || (ids == nullptr && capacity != 0)) refuse_argument("There is no place for the ids.");
  const Tokens tokens = handles().at(handle)->tokenize(texts, pairs, max_length);
  offsets[tokens.offsets.size() - 1] = tokens.offsets.back();
  if (tokens.ids.size() > capacity)
    throw Error(Fault::memory, "There is room for " + std::to_string(capacity) + " tokens of " +
                                   std::to_string(tokens.ids.size()) + ".", "Give more room.");
  std::copy(tokens.offsets.begin(), tokens.offsets.end(), offsets);
  std::copy(tokens.ids.begin(), tokens.ids.end(), ids);
  if (types != nullptr) {
    std::fill(types, types + tokens.ids.size(), 0);
    std::copy(tokens.types.begin(), tokens.types.end(), types);
  }
  if (cut != nullptr) *cut = tokens.cut;
}

void run(tightrope_model handle, const std::int32_t* ids, const std::int32_t* types, const std::int64_t* offsets,
         std::size_t count, float* out) {
  const std::shared_ptr<Model> model = handles().at(handle);
  if (count == 0) return;
  if (ids == nullptr || offsets == nullptr || out == nullptr) refuse_argument("An array is NULL.");
  if (offsets[0] != 0) refuse_argument("The first offset is " + std::to_string(offsets[0]) + ", not 0.");
  for (std::size_t row = 0; row < count; ++row)
    if (offsets[row + 1] < offsets[row]) refuse_argument("The offsets go down at row " + std::to_string(row) + ".");
  const auto total = static_cast<std::size_t>(offsets[count]);
  const std::span<const std::int32_t> kinds = types == nullptr ? std::span<const std::int32_t>() : std::span(types, total);
  model->run({{ids, total}, kinds, {offsets, count + 1}}, out);
}

void describe(tightrope_model handle, tightrope_description* description) {
  if (description == nullptr || description->size != sizeof(tightrope_description))
    refuse_argument("The description is of another version of tightrope.h.");
  const std::shared_ptr<Model> model = handles().at(handle);
  *description = {};
  description->size = sizeof(tightrope_description);
  description->tokenizes = model->tokenizes() ? 1 : 0;
  if (!model->encodes()) return;
  const Config& config = model->encoder().config();
  description->width = config.width;
  description->max_length = config.max_length;
  description->vocabulary = config.vocabulary;
  description->types = config.types;
  description->scores = config.scores;
}

void scan_rows(const tightrope_rows* rows, const std::int8_t* query, std::size_t most, std::int64_t* places, float* scores,
               std::size_t* found) {
  if (rows == nullptr || rows->size != sizeof(tightrope_rows))
    refuse_argument("The rows are of another version of tightrope.h.");
  if (found == nullptr) refuse_argument("There is no place for the number of rows that were found.");
  *found = 0;
  if (rows->count == 0 || most == 0) return;
  if (rows->stride == 0 || rows->stride % kScanStep != 0 || rows->stride > kMostScanned)
    refuse_argument("Rows are " + std::to_string(rows->stride) + " bytes apart, which is no multiple of " +
                    std::to_string(kScanStep) + " up to " + std::to_string(kMostScanned) + ".");
  if (rows->codes == nullptr || rows->scales == nullptr || query == nullptr || places == nullptr || scores == nullptr)
    refuse_argument("An array is NULL.");
  const Rows given{rows->codes, rows->stride, rows->count, rows->scales, rows->allowed};
  *found = scan(scan_for(chosen().isa), given, query, {places, most}, {scores, most});
}

}  // namespace
}  // namespace tightrope

using namespace tightrope;

const char* tightrope_version(void) { return TIGHTROPE_VERSION; }

const char* tightrope_isa(void) {
  const char* name = nullptr;
  guarded([&] { name = chosen().isa; });
  return name;
}

const char* tightrope_isas(void) {
  static const std::string names = [] {
    std::string all;
    for (const Kernels* kernels : available()) all.append(all.empty() ? "" : " ").append(kernels->isa);
    return all;
  }();
  return names.c_str();
}

const char* tightrope_last_error(void) { return last_error.c_str(); }

tightrope_status tightrope_open(const char* path, const tightrope_options* options, tightrope_model* model) {
  return guarded([&] {
    if (path == nullptr) refuse_argument("The path is NULL.");
    open_descriptor(Descriptor(path).number, options, model);
  });
}

tightrope_status tightrope_open_descriptor(int descriptor, const tightrope_options* options, tightrope_model* model) {
  return guarded([&] { open_descriptor(descriptor, options, model); });
}

tightrope_status tightrope_close(tightrope_model model) {
  return guarded([&] { handles().take(model); });
}

tightrope_status tightrope_describe(tightrope_model model, tightrope_description* description) {
  return guarded([&] { describe(model, description); });
}

tightrope_status tightrope_embed(tightrope_model model, const char* const* texts, const size_t* sizes, size_t count,
                                 float* out, size_t* cut) {
  return guarded([&] { answer(model, texts, sizes, count, false, out, cut); });
}

tightrope_status tightrope_score(tightrope_model model, const char* const* texts, const size_t* sizes, size_t count,
                                 float* out, size_t* cut) {
  return guarded([&] { answer(model, texts, sizes, count, true, out, cut); });
}

tightrope_status tightrope_run(tightrope_model model, const int32_t* ids, const int32_t* types, const int64_t* offsets,
                               size_t count, float* out) {
  return guarded([&] { run(model, ids, types, offsets, count, out); });
}

tightrope_status tightrope_tokenize(tightrope_model model, const char* const* texts, const size_t* sizes, size_t count,
                                    int pairs, size_t max_length, int32_t* ids, int32_t* types, size_t capacity,
                                    int64_t* offsets, size_t* cut) {
  return guarded([&] {
    const std::vector<std::string_view> given = views(texts, sizes, count, pairs != 0);
    tokenize(model, given, pairs != 0, max_length, ids, types, capacity, offsets, cut);
  });
}

tightrope_status tightrope_scan(const tightrope_rows* rows, const int8_t* query, size_t most, int64_t* places,
                                float* scores, size_t* found) {
  return guarded([&] { scan_rows(rows, query, most, places, scores, found); });
}
