// The socket that accepts.
#pragma once

#include <string>

namespace crossfade {

class Listener {
 public:
  // ``address``: ``host:port`` (an IPv6 host in brackets; port 0 is any free one), ``unix:path``.
  // Throws std::runtime_error with what to tell.
  explicit Listener(const std::string& address);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // A connection that does not block and its peer's IP address, or ``unix``; -1 if there is none.
  int accept(std::string& peer);
  void close();
  int fd() const { return fd_; }
  int port() const { return port_; }

 private:
  int fd_ = -1;
  int port_ = 0;
};

}  // namespace crossfade
