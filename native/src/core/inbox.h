// Complete calls on their way to Python, oldest first. Thread-safe.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <vector>

#include "call.h"

namespace crossfade {

class Inbox {
 public:
  ~Inbox() {
    for (Call* call : calls_) call->release();
    for (Call* call : cancelled_) call->release();
  }

  // Takes over the references; wakes one reader.
  void put(std::vector<Call*>& calls, std::vector<Call*>& cancelled) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      calls_.insert(calls_.end(), calls.begin(), calls.end());
      cancelled_.insert(cancelled_.end(), cancelled.begin(), cancelled.end());
    }
    calls.clear();
    cancelled.clear();
    changed_.notify_one();
  }

  // Moves up to ``most`` calls out, waiting for the first; false once it is closed and empty.
  bool take(size_t most, std::chrono::nanoseconds timeout, std::vector<Call*>& calls,
            std::vector<Call*>& cancelled) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, timeout,
                      [&] { return !calls_.empty() || !cancelled_.empty() || closed_; });
    size_t count = std::min(most, calls_.size());
    calls.assign(calls_.begin(), calls_.begin() + static_cast<std::ptrdiff_t>(count));
    calls_.erase(calls_.begin(), calls_.begin() + static_cast<std::ptrdiff_t>(count));
    cancelled.clear();
    cancelled.swap(cancelled_);
    if (!calls_.empty()) changed_.notify_one();
    return !closed_ || !calls.empty() || !cancelled.empty();
  }

  // Whether there is something to take at once.
  bool ready() {
    std::lock_guard<std::mutex> lock(mutex_);
    return !calls_.empty() || !cancelled_.empty() || closed_;
  }

  void close() {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Call*> calls_;
  std::vector<Call*> cancelled_;
  bool closed_ = false;
};

}  // namespace crossfade
