// A call as the network thread and Python share it.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace crossfade {

// Counts the bytes of messages that are held anywhere. Thread-safe.
using Budget = std::atomic<size_t>;

// One gRPC message. The memory is there at once, and paid for as its bytes arrive.
class Message {
 public:
  Message() = default;
  Message(Message&& other) noexcept { *this = std::move(other); }
  Message& operator=(Message&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(filled_, other.filled_);
    std::swap(budget_, other.budget_);
    std::swap(compressed_, other.compressed_);
    return *this;
  }
  ~Message() {
    if (budget_) budget_->fetch_sub(filled_, std::memory_order_relaxed);
    std::free(data_);
  }

  // False if there is no memory for it.
  bool begin(size_t size, bool compressed, Budget& budget) {
    data_ = static_cast<uint8_t*>(std::malloc(size ? size : 1));
    size_ = size;
    compressed_ = compressed;
    budget_ = &budget;
    return data_ != nullptr;
  }
  void append(const uint8_t* data, size_t size) {
    std::copy(data, data + size, data_ + filled_);
    filled_ += size;
    budget_->fetch_add(size, std::memory_order_relaxed);
  }
  bool begun() const { return data_ != nullptr; }
  size_t missing() const { return size_ - filled_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  bool compressed() const { return compressed_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  size_t filled_ = 0;
  Budget* budget_ = nullptr;
  bool compressed_ = false;
};

// What came in on a streaming call, and how much of what went out is unsent.
struct Channel {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Message> messages;
  bool half_closed = false;
  size_t unsent_bytes = 0;
};

struct Stream;

// Counted by hand: the stream holds one, Python another, and so does whatever is on its way.
struct Call {
  // Set before Python sees it, and constant from then on.
  uint32_t method = 0;
  Message message;  // of a unary call
  std::vector<std::pair<std::string, std::string>> metadata;
  std::shared_ptr<const std::string> peer;
  std::string encoding;    // of compressed messages
  int64_t deadline_ns = 0;  // CLOCK_MONOTONIC; 0 is none
  std::unique_ptr<Channel> channel;  // of a streaming call

  // Shared.
  std::atomic<bool> cancelled{false};
  std::atomic<bool> answered{false};
  std::atomic<bool> subscribed{false};
  std::atomic<int> references{1};

  void* callbacks = nullptr;  // Python's, and only touched with its lock held
  Stream* stream = nullptr;   // the network thread's; nothing once it is closed

  void release() {
    if (references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
};

// What Python says about a call. ``data`` is a whole message, framed by whoever sends it.
struct Answer {
  enum class Kind { kReply, kMessage, kFinish, kConsumed };
  Call* call = nullptr;  // holds a reference
  Kind kind = Kind::kReply;
  std::string data;
  int status = 0;
  std::string text;
  std::string pushback_ms;
};

}  // namespace crossfade
