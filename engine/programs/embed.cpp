// tightrope-embed: lines of text to rows of numbers, through the same C interface as every other program.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tightrope.h"

namespace {

constexpr const char* kHelp =
    "tightrope-embed MODEL.tightrope [options] < lines\n"
    "\n"
    "Reads one text a line from standard input and writes one row of numbers a line to standard output.\n"
    "\n"
    "  --score             each line is a pair, divided by a tab; the model must score pairs\n"
    "  --ids               write the token ids of each line, and run nothing\n"
    "  --npy FILE          write float32 rows to FILE in NumPy's format, not as text\n"
    "  --threads N         threads that work on one batch (1)\n"
    "  --half-attention    attention in bfloat16 where the processor multiplies it\n"
    "  --time              say on standard error how long starting and each text took\n"
    "  --help              say this\n";
constexpr std::size_t kBatch = 1024;  // lines that are read before they are answered

// What is wrong, and on a second line what to do.
class Failure : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

void check(tightrope_status status) {
  if (status != TIGHTROPE_OK) throw Failure(tightrope_last_error());
}

struct Wanted {
  std::string model, npy;
  bool score = false, ids = false, time = false, help = false;
  tightrope_options options{sizeof(tightrope_options), 1, 0, 0};
};

std::uint32_t number(const std::string& text) {
  const bool digits = !text.empty() && text.size() < 5 && text.find_first_not_of("0123456789") == std::string::npos;
  if (!digits) throw Failure(text + " is not a number of threads.\nGive 1 to 1024.");
  return static_cast<std::uint32_t>(std::stoul(text));
}

Wanted parse(const std::vector<std::string>& arguments) {
  Wanted wanted;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    const auto value = [&] {
      if (i + 1 == arguments.size()) throw Failure(word + " lacks its value.\nSee tightrope-embed --help.");
      return arguments[++i];
    };
    if (word == "--help") wanted.help = true;
    else if (word == "--score") wanted.score = true;
    else if (word == "--ids") wanted.ids = true;
    else if (word == "--time") wanted.time = true;
    else if (word == "--npy") wanted.npy = value();
    else if (word == "--threads") wanted.options.threads = number(value());
    else if (word == "--half-attention") wanted.options.half_attention = 1;
    else if (word.starts_with("-")) throw Failure("There is no option " + word + ".\nSee tightrope-embed --help.");
    else if (wanted.model.empty()) wanted.model = word;
    else throw Failure(word + " is one argument too many.\nTexts are read from standard input, one a line.");
  }
  if (wanted.model.empty() && !wanted.help) throw Failure("No model is named.\nSee tightrope-embed --help.");
  if (wanted.ids && !wanted.npy.empty()) throw Failure("--ids writes no rows of floats.\nLeave out --npy or --ids.");
  return wanted;
}

// An open model, closed at the end.
class Model {
 public:
  Model(const std::string& path, const tightrope_options& options) {
    check(tightrope_open(path.c_str(), &options, &handle));
    check(tightrope_describe(handle, &about));
  }
  ~Model() { tightrope_close(handle); }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  tightrope_model handle = 0;
  tightrope_description about{sizeof(tightrope_description), 0, 0, 0, 0, 0, 0};
};

// Texts as the C interface takes them. Lines may hold zero bytes, so sizes are given.
struct Texts {
  std::vector<const char*> starts;
  std::vector<std::size_t> sizes;

  void add(std::string_view text) {
    starts.push_back(text.data());
    sizes.push_back(text.size());
  }
};

Texts split(const std::vector<std::string>& lines, bool pairs, std::size_t before) {
  Texts texts;
  for (const std::string& line : lines) {
    const std::size_t tab = pairs ? line.find('\t') : line.size();
    if (tab == std::string::npos)
      throw Failure("Line " + std::to_string(before + 1 + static_cast<std::size_t>(&line - lines.data())) +
                    " has no tab.\nDivide the two texts of a pair by one.");
    texts.add(std::string_view(line).substr(0, tab));
    if (pairs) texts.add(std::string_view(line).substr(tab + 1));
  }
  return texts;
}

// Rows of float32 in NumPy's format: a header of text, whose room is kept until the number of rows is known.
class Npy {
 public:
  Npy(const std::string& path, std::size_t width) : path_(path), width_(width), file_(path, std::ios::binary) {
    write_header();
  }

  void add(const std::vector<float>& rows) {
    file_.write(reinterpret_cast<const char*>(rows.data()), static_cast<std::streamsize>(rows.size() * sizeof(float)));
    rows_ += rows.size() / width_;
  }

  void finish() {
    file_.seekp(0);
    write_header();
    file_.close();
    if (!file_) throw Failure(path_ + " cannot be written.\nGive a place that this user may write to.");
  }

 private:
  void write_header() {
    std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows_) + ", " +
                       std::to_string(width_) + "), }";
    text.resize(117, ' ');
    const char begin[] = {'\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0, 118, 0};
    file_.write(begin, sizeof begin) << text << '\n';
    if (!file_) throw Failure(path_ + " cannot be written.\nGive a place that this user may write to.");
  }

  const std::string path_;
  const std::size_t width_;
  std::ofstream file_;
  std::size_t rows_ = 0;
};

void print(const std::vector<float>& rows, std::size_t width) {
  for (std::size_t i = 0; i < rows.size(); ++i) std::printf("%.9g%c", rows[i], (i + 1) % width == 0 ? '\n' : ' ');
}

void print_ids(const Model& model, const Texts& texts, std::size_t count, bool pairs) {
  std::vector<std::int64_t> offsets(count + 1);
  std::vector<std::int32_t> ids;
  const auto tokenize = [&] {
    return tightrope_tokenize(model.handle, texts.starts.data(), texts.sizes.data(), count, pairs,
                              model.about.max_length, ids.data(), nullptr, ids.size(), offsets.data(), nullptr);
  };
  tightrope_status status = tokenize();
  if (status == TIGHTROPE_MEMORY) {  // now the last offset says how many there are
    ids.resize(static_cast<std::size_t>(offsets[count]));
    status = tokenize();
  }
  check(status);
  for (std::size_t row = 0; row < count; ++row)
    for (std::int64_t i = offsets[row]; i < offsets[row + 1]; ++i)
      std::printf("%d%c", ids[static_cast<std::size_t>(i)], i + 1 == offsets[row + 1] ? '\n' : ' ');
}

std::vector<float> answers(const Model& model, const Texts& texts, std::size_t count, bool pairs) {
  std::vector<float> rows(count * model.about.width);
  const auto answer = pairs ? tightrope_score : tightrope_embed;
  check(answer(model.handle, texts.starts.data(), texts.sizes.data(), count, rows.data(), nullptr));
  return rows;
}

bool read(std::vector<std::string>& lines, std::size_t most) {
  lines.clear();
  for (std::string line; lines.size() < most && std::getline(std::cin, line);) lines.push_back(std::move(line));
  return !lines.empty();
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void report(double start_s, std::vector<double> each_s) {
  if (each_s.empty()) return;
  double total = 0;
  for (const double seconds : each_s) total += seconds;
  std::sort(each_s.begin(), each_s.end());
  std::fprintf(stderr, "start-up %.1f ms; %zu texts, one at a time: p50 %.3f ms, %.1f texts/s\n", 1e3 * start_s,
               each_s.size(), 1e3 * each_s[each_s.size() / 2], static_cast<double>(each_s.size()) / total);
}

void run(const Wanted& wanted) {
  const double begin = now_s();
  const Model model(wanted.model, wanted.options);
  const double start_s = now_s() - begin;
  std::vector<std::string> lines;
  std::vector<double> each_s;
  std::optional<Npy> npy;
  if (!wanted.npy.empty()) npy.emplace(wanted.npy, model.about.width);
  for (std::size_t before = 0; read(lines, wanted.time ? 1 : kBatch); before += lines.size()) {
    const Texts texts = split(lines, wanted.score, before);
    if (wanted.ids) {
      print_ids(model, texts, lines.size(), wanted.score);
      continue;
    }
    const double from = now_s();
    const std::vector<float> rows = answers(model, texts, lines.size(), wanted.score);
    each_s.push_back(now_s() - from);
    if (npy) npy->add(rows);
    else print(rows, model.about.width);
  }
  if (npy) npy->finish();
  if (wanted.time) report(start_s, each_s);
}

}  // namespace

int main(int count, char** arguments) {
  std::ios::sync_with_stdio(false);
  try {
    const Wanted wanted = parse({arguments + 1, arguments + count});
    if (wanted.help) std::fputs(kHelp, stdout);
    else run(wanted);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  return 0;
}
