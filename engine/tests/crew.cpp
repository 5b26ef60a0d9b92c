// Crew and Model under many threads, for ThreadSanitizer: engine/sanitize.sh builds and runs this.
//
//   crew [MODEL.tightrope]
//
// ThreadSanitizer says what raced; this says what came out wrong. It ends with 1 if anything did.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "crew.hpp"
#include "tightrope.h"

namespace {

using namespace tightrope;

std::atomic<int> wrong{0};

void require(bool met, const char* what) {
  if (met) return;
  std::fprintf(stderr, "%s\n", what);
  ++wrong;
}

void together(int count, const std::function<void(int)>& act) {
  std::vector<std::thread> threads;
  for (int number = 0; number < count; ++number) threads.emplace_back(act, number);
  for (std::thread& thread : threads) thread.join();
}

// Every part is done once, whoever has the crew.
void share_work(Crew& crew, std::size_t parts) {
  std::vector<int> done(parts);
  const auto claim = crew.claim();
  if (!claim) return;
  crew.run(parts, [&](std::size_t part, std::size_t worker) {
    require(worker < crew.threads(), "a worker has no such number");
    ++done[part];
  });
  for (const int times : done) require(times == 1, "a part was not done once");
}

void check_crew() {
  for (int round = 0; round < 50; ++round) {
    Crew crew(4, round % 2 == 1);
    together(3, [&](int number) {
      for (int turn = 0; turn < 20; ++turn) share_work(crew, static_cast<std::size_t>(turn * (number + 1)));
    });
    if (round % 5 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the helpers fall asleep
    share_work(crew, 100);
  }
}

void check_more_parts_than_a_ticket_counts() {
  Crew crew(2, false);
  std::atomic<std::uint64_t> sum{0};
  const std::uint64_t parts = (1U << 20) + 5;
  const auto claim = crew.claim();
  crew.run(parts, [&](std::size_t part, std::size_t) { sum += part; });
  require(sum == parts * (parts - 1) / 2, "a long job was not done whole");
}

// What a part throws comes out of run(), and the next job is none the worse.
void check_failures() {
  Crew crew(3, false);
  const auto claim = crew.claim();
  for (int turn = 0; turn < 100; ++turn) {
    try {
      crew.run(50, [](std::size_t part, std::size_t) {
        if (part % 7 == 3) throw std::runtime_error("part");
      });
      require(false, "an error was lost");
    } catch (const std::runtime_error&) {
    }
    std::atomic<int> done{0};
    crew.run(50, [&](std::size_t, std::size_t) { ++done; });
    require(done == 50, "a job after an error was not done");
  }
}

// Ten threads ask one model of three helpers, which is closed under way: they get the right answer, or a refusal.
void check_model(const char* path) {
  const tightrope_options options{sizeof options, 3, 0, 0};
  const char* texts[] = {"the cat sat", "a", "", "sat on the cat and sat and sat and sat on it again and again, the cat"};
  constexpr std::size_t kCount = 4;
  for (int round = 0; round < 20; ++round) {
    tightrope_model model;
    tightrope_description about{sizeof about, 0, 0, 0, 0, 0, 0};
    require(tightrope_open(path, &options, &model) == TIGHTROPE_OK, tightrope_last_error());
    require(tightrope_describe(model, &about) == TIGHTROPE_OK, tightrope_last_error());
    std::vector<float> expected(kCount * about.width);
    require(tightrope_embed(model, texts, nullptr, kCount, expected.data(), nullptr) == TIGHTROPE_OK, "no answer");
    together(10, [&](int number) {
      for (int turn = 0; turn < 20; ++turn) {
        if (number == 9 && turn == 10) tightrope_close(model);
        std::vector<float> found(expected.size());
        const tightrope_status status = tightrope_embed(model, texts, nullptr, kCount, found.data(), nullptr);
        require(status == TIGHTROPE_OK || status == TIGHTROPE_CLOSED, tightrope_last_error());
        require(status != TIGHTROPE_OK || found == expected, "an answer differs");
      }
    });
    require(tightrope_close(model) == TIGHTROPE_CLOSED, "a model was closed twice");
  }
}

}  // namespace

int main(int count, char** arguments) {
  check_crew();
  check_more_parts_than_a_ticket_counts();
  check_failures();
  if (count > 1) check_model(arguments[1]);
  return wrong == 0 ? 0 : 1;
}
