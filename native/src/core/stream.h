// One HTTP/2 stream: a request on its way in and its answer on the way out.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "call.h"

namespace crossfade {

class Connection;

struct Stream {
  Stream(Connection& owner, int32_t number) : connection(owner), id(number) {}

  Connection& connection;
  const int32_t id;

  // The request's head.
  std::string path;
  bool is_post = false;
  bool is_grpc = false;
  size_t head_bytes = 0;
  std::optional<int64_t> timeout_ns;
  std::string encoding;
  std::vector<std::pair<std::string, std::string>> metadata;

  // Its messages.
  bool streaming = false;
  bool ignores_rest = false;  // of the request: it is refused, or answered
  uint8_t prefix[5] = {};
  size_t prefix_bytes = 0;
  Message message;
  bool complete = false;       // the one message of a unary call is there
  size_t unconsumed_bytes = 0;  // of a streaming call, not yet given back to the window
  int64_t progress_ns = 0;
  Call* call = nullptr;  // holds a reference

  // The answer.
  std::deque<std::string> out;
  size_t out_at = 0;  // sent of the first
  bool head_sent = false;
  bool deferred = false;
  bool finished = false;
  int status = 0;
  std::string text;
  std::string pushback_ms;

  std::optional<std::list<Stream*>::iterator> waiting_at;
  std::optional<std::multimap<int64_t, Stream*>::iterator> deadline_at;
};

}  // namespace crossfade
