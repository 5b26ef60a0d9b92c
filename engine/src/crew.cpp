#include "crew.hpp"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace tightrope {
namespace {

constexpr int kPartBits = 20;
constexpr std::uint64_t kPartMask = (1U << kPartBits) - 1;
constexpr int kSpins = 4000;  // some tens of microseconds: longer than the pause between two jobs of a call

constexpr std::uint64_t job(std::uint64_t ticket) { return ticket >> (2 * kPartBits); }
constexpr std::uint64_t parts(std::uint64_t ticket) { return (ticket >> kPartBits) & kPartMask; }
constexpr std::uint64_t next(std::uint64_t ticket) { return ticket & kPartMask; }

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// The cores that the process may use, in their order.
std::vector<int> cores() {
  std::vector<int> found;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return found;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &set)) found.push_back(core);
  return found;
}

void pin(std::thread& thread, int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);  // where that is refused, it runs unpinned
}

}  // namespace

Crew::Crew(std::size_t threads, bool pinned) : process_(getpid()) {
  const std::vector<int> allowed = pinned ? cores() : std::vector<int>();
  try {
    helpers_.reserve(threads);
    for (std::size_t worker = 1; worker < threads; ++worker) {
      helpers_.emplace_back([this, worker] { help(worker); });
      if (worker < allowed.size()) pin(helpers_.back(), allowed[worker]);
    }
  } catch (...) {  // the system gives no more threads: those that are here must end before the crew does
    dismiss();
    throw;
  }
}

Crew::~Crew() {
  if (process_ == getpid()) dismiss();
  // After a fork the helpers are not there, and their places may be other threads': they are forgotten, not detached.
  else new std::vector<std::thread>(std::move(helpers_));
}

void Crew::dismiss() {
  ends_ = true;
  ticket_ += std::uint64_t{1} << (2 * kPartBits);
  ticket_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

std::unique_lock<std::mutex> Crew::claim() {
  if (helpers_.empty() || process_ != getpid()) return {};
  return std::unique_lock<std::mutex>(claimed_, std::try_to_lock);
}

void Crew::run(std::size_t count, Call call, const void* context) {
  call_ = call;
  context_ = context;
  for (first_ = 0; first_ < count; first_ += kPartMask) run_some(std::min<std::size_t>(count - first_, kPartMask));
}

// A job of as many parts as a ticket can count, from first_ on.
void Crew::run_some(std::size_t count) {
  done_.store(0, std::memory_order_relaxed);
  const std::uint64_t number = job(ticket_.load(std::memory_order_relaxed)) + 1;
  ticket_.store((number << (2 * kPartBits)) | (static_cast<std::uint64_t>(count) << kPartBits));
  if (sleepers_.load() != 0) ticket_.notify_all();
  while (do_part(0)) {
  }
  while (done_.load(std::memory_order_acquire) != count) pause();
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

// Takes a part and does it; false if none is left. Only a ticket that was really drawn is acted on: until its part is
// done, the job that it belongs to stays.
bool Crew::do_part(std::size_t worker) {
  std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
  do {
    if (next(ticket) >= parts(ticket)) return false;
  } while (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel));
  try {
    call_(context_, first_ + next(ticket), worker);
  } catch (...) {
    const std::lock_guard<std::mutex> lock(failing_);
    failure_ = std::current_exception();
  }
  done_.fetch_add(1, std::memory_order_release);
  return true;
}

void Crew::help(std::size_t worker) {
  std::uint64_t seen = 0;
  while (!ends_) {
    seen = wait(seen);
    while (do_part(worker)) {
    }
  }
}

// Until there is another job than the one seen.
std::uint64_t Crew::wait(std::uint64_t seen) {
  for (int spin = 0; spin < kSpins; ++spin) {
    const std::uint64_t number = job(ticket_.load(std::memory_order_relaxed));
    if (number != seen) return number;
    pause();
  }
  sleepers_.fetch_add(1);
  std::uint64_t ticket = ticket_.load();
  while (job(ticket) == seen) {
    ticket_.wait(ticket);
    ticket = ticket_.load();
  }
  sleepers_.fetch_sub(1);
  return job(ticket);
}

}  // namespace tightrope
