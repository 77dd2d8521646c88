#include "listener.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace crossfade {

namespace {

constexpr int kBacklog = 4096;
constexpr int kKind = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

[[noreturn]] void fail(const char* what) {
  throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

void set(int fd, int level, int option, int value) {
  setsockopt(fd, level, option, &value, sizeof(value));
}

int bind_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    errno = ENAMETOOLONG;
    fail("bind");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  int fd = socket(AF_UNIX, kKind, 0);
  if (fd < 0) fail("socket");
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) < 0) {
    int error = errno;
    ::close(fd);
    errno = error;
    fail("bind");
  }
  return fd;
}

int bind_tcp(const std::string& address) {
  size_t colon = address.rfind(':');
  if (colon == std::string::npos) throw std::runtime_error("the address has no port");
  std::string host = address.substr(0, colon);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (int error = getaddrinfo(host.empty() ? nullptr : host.c_str(),
                              address.c_str() + colon + 1, &hints, &found))
    throw std::runtime_error(gai_strerror(error));
  int fd = -1;
  errno = EADDRNOTAVAIL;
  for (addrinfo* at = found; at && fd < 0; at = at->ai_next) {
    fd = socket(at->ai_family, kKind, 0);
    if (fd < 0) continue;
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);  // not REUSEPORT: a port in use is an error
    if (at->ai_family == AF_INET6) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0) break;
    int error = errno;
    ::close(fd);
    fd = -1;
    errno = error;
  }
  freeaddrinfo(found);
  if (fd < 0) fail("bind");
  return fd;
}

std::string text_of(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text, sizeof(text));
  } else if (address.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, text,
              sizeof(text));
  } else {
    return "unix";
  }
  return text;
}

}  // namespace

Listener::Listener(const std::string& address) {
  bool is_unix = address.rfind("unix:", 0) == 0;
  fd_ = is_unix ? bind_unix(address.substr(5)) : bind_tcp(address);
  if (listen(fd_, kBacklog) < 0) {
    int error = errno;
    close();
    errno = error;
    fail("listen");
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  getsockname(fd_, reinterpret_cast<sockaddr*>(&bound), &size);
  if (bound.ss_family == AF_INET) port_ = ntohs(reinterpret_cast<sockaddr_in&>(bound).sin_port);
  if (bound.ss_family == AF_INET6) port_ = ntohs(reinterpret_cast<sockaddr_in6&>(bound).sin6_port);
}

Listener::~Listener() { close(); }

void Listener::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

int Listener::accept(std::string& peer) {
  sockaddr_storage from{};
  socklen_t size = sizeof(from);
  int fd = accept4(fd_, reinterpret_cast<sockaddr*>(&from), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return -1;
  peer = text_of(from);
  if (from.ss_family != AF_UNIX) {
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    // A peer that is gone without a word is found out within minutes.
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 20);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  }
  return fd;
}

}  // namespace crossfade
