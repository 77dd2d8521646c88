// What all connections share. Owned by the network thread, except where it says otherwise.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>
#include <list>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "call.h"
#include "inbox.h"
#include "limits.h"

namespace crossfade {

class Connection;

inline int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

struct Method {
  uint32_t index;
  bool streaming;
};

// Counters since the start; read by any thread.
struct Counters {
  std::atomic<uint64_t> connections{0};  // open now
  std::atomic<uint64_t> accepted{0};
  std::atomic<uint64_t> calls{0};
  std::atomic<uint64_t> refused{0};
  std::atomic<uint64_t> received_bytes{0};
  std::atomic<uint64_t> sent_bytes{0};
};

struct Hub {
  Limits limits;
  std::unordered_map<std::string, Method> methods;  // constant
  Inbox inbox;                                       // thread-safe
  Budget held_bytes{0};                              // thread-safe
  std::atomic<size_t> pending{0};                    // calls that Python has not answered
  Counters counters;

  int64_t now_ns = 0;
  std::vector<Call*> ready;           // to be put into the inbox at the end of the round
  std::vector<Call*> cancelled;       // likewise
  std::vector<Connection*> unflushed;
  std::list<Stream*> waiting;                      // for their message; oldest first
  std::multimap<int64_t, Stream*> deadlines;
};

}  // namespace crossfade
