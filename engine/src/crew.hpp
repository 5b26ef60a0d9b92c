// A crew: the calling thread and its helpers, who share the work of one call and sleep when there is none.
//
// A job is cut in numbered parts that write to places of their own, so who does which part changes no answer. Helpers
// spin for some microseconds after a part, because the next job of the same call follows at once, and then sleep.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace tightrope {

class Crew {
 public:
  // `threads` in all, the caller's included. Pinned, each helper stays on a core of its own, if there are that many.
  Crew(std::size_t threads, bool pinned);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  std::size_t threads() const { return helpers_.size() + 1; }

  // Take the helpers for one call; where another call has them, or after a fork, the caller works alone.
  std::unique_lock<std::mutex> claim();

  // Does work(part, worker) for every part below `parts`; worker is below threads(). Only with a claim that holds. What
  // a part throws is thrown here, when all are done.
  template <class Work>
  void run(std::size_t parts, const Work& work) {
    run(parts, [](const void* context, std::size_t part, std::size_t worker) {
      (*static_cast<const Work*>(context))(part, worker);
    }, &work);
  }

 private:
  using Call = void (*)(const void* context, std::size_t part, std::size_t worker);

  void run(std::size_t parts, Call call, const void* context);
  void run_some(std::size_t count);
  void dismiss();
  void help(std::size_t worker);
  bool do_part(std::size_t worker);
  std::uint64_t wait(std::uint64_t seen);

  // The job at hand in one word, so that a part is taken and its job recognised at once: number of the job, parts in
  // all, next part.
  std::atomic<std::uint64_t> ticket_{0};
  std::atomic<std::size_t> done_{0};
  std::atomic<std::size_t> sleepers_{0};
  std::atomic<bool> ends_{false};
  Call call_ = nullptr;
  const void* context_ = nullptr;
  std::size_t first_ = 0;  // part of the job at hand
  std::mutex claimed_;
  std::mutex failing_;
  std::exception_ptr failure_;
  std::int64_t process_;
  std::vector<std::thread> helpers_;
};

}  // namespace tightrope
