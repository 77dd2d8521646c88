// The network thread: accepts, receives, sends, keeps deadlines. Its public part is thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "connection.h"
#include "hub.h"
#include "listener.h"

namespace crossfade {

class Loop {
 public:
  // Binds and listens; throws std::runtime_error. Nothing is accepted before ``start``.
  Loop(const std::vector<std::string>& addresses, Limits limits,
       std::vector<std::pair<std::string, bool>> methods);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  void start();
  // Takes over what ``said`` holds, the reference to the call included.
  void post(Answer&& said);
  // Accepts no connection any more, tells peers to open no more calls, and closes idle ones.
  void drain();
  // Ends at once: calls in flight are cancelled, waiting readers of the inbox return.
  void stop();

  Hub& hub() { return hub_; }
  // Of the first address that has one.
  int port() const;

 private:
  void run();
  void wake();
  int wait_ms() const;
  void accept(Listener& listener);
  Listener* listener_of(int fd);
  void watch_listeners();
  void pause_accepting();
  void on_ready(Connection& connection, uint32_t events);
  bool receive(Connection& connection);
  bool flush(Connection& connection);
  void watch(Connection& connection);
  void linger(Connection& connection);
  void close(Connection& connection);
  void take_answers();
  void keep_deadlines();
  void look_after_all();
  void begin_drain();
  void last_words();

  Hub hub_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  int epoll_ = -1;
  int event_ = -1;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> draining_{false};
  std::atomic<bool> asleep_{false};
  std::mutex outbox_mutex_;
  std::vector<Answer> outbox_;

  // The network thread's.
  std::unordered_map<int, std::unique_ptr<Connection>> connections_;  // by file descriptor
  std::vector<uint8_t> buffer_;
  std::vector<Answer> taken_;
  std::vector<Connection*> flushing_;
  int64_t looked_ns_ = 0;
  int64_t accept_after_ns_ = 0;  // out of file descriptors until then
  int64_t end_ns_ = 0;           // of the drain: when to say for good that no call is taken
  bool drain_begun_ = false;
  bool drain_ended_ = false;
};

}  // namespace crossfade
