// One HTTP/2 connection: frames to calls, answers to frames. Lives on the network thread.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "hub.h"
#include "stream.h"

namespace crossfade {

class Connection {
 public:
  Connection(Hub& hub, int fd, std::string peer);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // What came off the network; false once nothing more is to be read.
  bool receive(const uint8_t* data, size_t size);
  // Frames that are due, up to some size, appended to ``out``; false if the connection is broken.
  bool send(std::string& out);
  // Python's word on a call of this connection whose stream is still there.
  void answer(Stream& stream, Answer& said);
  // Refuses a call, or ends one whose answer has begun, with this status.
  void refuse(Stream& stream, int status, std::string_view text, std::string_view pushback_ms = {});
  // Tells the peer to open no more streams: first that it is coming, then for good.
  void announce_end();
  void end();
  // Once a second: cuts what does not go on; false if the connection is to be closed.
  bool look_after(int64_t now_ns);

  bool done() const;
  bool reads_paused() const { return unsent_bytes_ > kUnsentBytes; }
  void mark_unflushed();

  // The loop's.
  const int fd;
  std::string out;      // frames that the socket has not taken
  size_t out_at = 0;    // taken of them
  uint32_t interest = 0;
  bool unflushed = false;
  bool lingering = false;  // all is said; what comes is thrown away until the peer closes
  int64_t linger_until_ns = 0;
  int64_t sent_ns = 0;  // when the socket last took something

 private:
  friend struct Callbacks;
  void on_head_field(Stream& stream, std::string_view name, std::string_view value);
  void on_head(Stream& stream);
  void on_data(Stream& stream, const uint8_t* data, size_t size);
  void on_message(Stream& stream);
  void on_half_close(Stream& stream);
  void on_close(Stream& stream);
  void on_ping();
  ssize_t read_out(Stream& stream, uint8_t* buffer, size_t size, uint32_t* flags);
  void publish(Stream& stream);
  void detach(Stream& stream, bool cancelled);
  void stop_waiting(Stream& stream);
  void submit_status_only(Stream& stream);
  void submit_http_error(Stream& stream, const char* status);
  void consume(Stream& stream, size_t size);

  Hub& hub_;
  nghttp2_session* session_ = nullptr;
  std::shared_ptr<const std::string> peer_;
  std::unordered_map<int32_t, std::unique_ptr<Stream>> streams_;
  size_t unsent_bytes_ = 0;
  int64_t opened_ns_;
  int64_t ping_ns_ = 0;
  int strikes_ = 0;
  bool greeted_ = false;  // the peer's preface and settings are there
};

}  // namespace crossfade
