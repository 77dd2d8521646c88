#include "loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

namespace crossfade {

namespace {

constexpr size_t kBufferBytes = 256u << 10;
constexpr int kReadsARound = 4;  // of one connection, before the others get their turn
constexpr int kEvents = 256;
constexpr int64_t kLookNs = 1'000'000'000;
constexpr int64_t kLingerNs = 2'000'000'000;
constexpr int64_t kDrainNoticeNs = 50'000'000;  // a round trip for calls that are on their way
constexpr int64_t kAcceptPauseNs = 100'000'000;
constexpr int kLastRounds = 50;
constexpr int kLastRoundMs = 10;

}  // namespace

Loop::Loop(const std::vector<std::string>& addresses, Limits limits,
           std::vector<std::pair<std::string, bool>> methods)
    : buffer_(kBufferBytes) {
  for (const std::string& address : addresses)
    listeners_.push_back(std::make_unique<Listener>(address));
  hub_.limits = limits;
  uint32_t index = 0;
  for (auto& [path, streaming] : methods) hub_.methods[path] = Method{index++, streaming};
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  event_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (epoll_ < 0 || event_ < 0) throw std::runtime_error("no file descriptor is left");
  epoll_event watched{};
  watched.events = EPOLLIN;
  watched.data.fd = event_;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &watched);
  watch_listeners();
}

int Loop::port() const {
  for (const auto& listener : listeners_)
    if (listener->port()) return listener->port();
  return 0;
}

Listener* Loop::listener_of(int fd) {
  for (const auto& listener : listeners_)
    if (listener->fd() == fd) return listener.get();
  return nullptr;
}

void Loop::watch_listeners() {
  for (const auto& listener : listeners_) {
    epoll_event watched{};
    watched.events = EPOLLIN;
    watched.data.fd = listener->fd();
    epoll_ctl(epoll_, EPOLL_CTL_ADD, listener->fd(), &watched);
  }
}

Loop::~Loop() {
  stop();
  ::close(event_);
  ::close(epoll_);
}

void Loop::start() {
  thread_ = std::thread([this] { run(); });
}

void Loop::wake() {
  if (!asleep_.exchange(false)) return;
  uint64_t one = 1;
  [[maybe_unused]] ssize_t written = write(event_, &one, sizeof(one));
}

void Loop::post(Answer&& said) {
  {
    std::lock_guard<std::mutex> lock(outbox_mutex_);
    outbox_.push_back(std::move(said));
  }
  wake();
}

void Loop::drain() {
  draining_ = true;
  wake();
}

void Loop::stop() {
  stopping_ = true;
  uint64_t one = 1;
  [[maybe_unused]] ssize_t written = write(event_, &one, sizeof(one));
  if (thread_.joinable()) thread_.join();
  for (auto& [fd, connection] : connections_) ::close(fd);
  connections_.clear();  // cancels what is in flight
  hub_.unflushed.clear();
  hub_.inbox.put(hub_.ready, hub_.cancelled);
  hub_.inbox.close();
  std::lock_guard<std::mutex> lock(outbox_mutex_);
  for (Answer& said : outbox_) said.call->release();
  outbox_.clear();
}

void Loop::run() {
  epoll_event events[kEvents];
  while (!stopping_) {
    asleep_ = true;
    int timeout_ms = wait_ms();
    {
      std::lock_guard<std::mutex> lock(outbox_mutex_);
      if (!outbox_.empty() || (draining_ && !drain_begun_)) timeout_ms = 0;
    }
    int count = epoll_wait(epoll_, events, kEvents, timeout_ms);
    asleep_ = false;
    hub_.now_ns = monotonic_ns();
    for (int i = 0; i < count; ++i) {
      int fd = events[i].data.fd;
      if (fd == event_) {
        uint64_t ignored;
        [[maybe_unused]] ssize_t got = read(event_, &ignored, sizeof(ignored));
      } else if (Listener* listener = listener_of(fd)) {
        accept(*listener);
      } else if (auto found = connections_.find(fd); found != connections_.end()) {
        on_ready(*found->second, events[i].events);
      }
    }
    if (accept_after_ns_ && hub_.now_ns >= accept_after_ns_) {
      accept_after_ns_ = 0;
      if (!drain_begun_) watch_listeners();
    }
    take_answers();
    keep_deadlines();
    if (draining_ && !drain_begun_) begin_drain();
    if (hub_.now_ns - looked_ns_ > kLookNs || (drain_begun_ && !drain_ended_)) look_after_all();
    if (!hub_.ready.empty() || !hub_.cancelled.empty())
      hub_.inbox.put(hub_.ready, hub_.cancelled);  // first: Python works while we send
    flushing_.swap(hub_.unflushed);
    for (size_t i = 0; i < flushing_.size(); ++i) {
      Connection* connection = flushing_[i];
      if (!connection) continue;  // closed since
      connection->unflushed = false;
      if (!flush(*connection)) close(*connection);
    }
    flushing_.clear();
    if (!hub_.ready.empty() || !hub_.cancelled.empty())
      hub_.inbox.put(hub_.ready, hub_.cancelled);
  }
  last_words();
}

// What has been answered is sent, if its reader takes it.
void Loop::last_words() {
  for (int round = 0; round < kLastRounds; ++round) {
    take_answers();
    bool unsent = false;
    for (auto& [fd, connection] : connections_) {
      flush(*connection);
      unsent |= !connection->lingering && !connection->out.empty();
    }
    if (!unsent) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(kLastRoundMs));
  }
}

int Loop::wait_ms() const {
  int64_t until_ns = looked_ns_ + kLookNs;
  if (drain_begun_ && !drain_ended_) until_ns = std::min(until_ns, end_ns_);
  if (accept_after_ns_) until_ns = std::min(until_ns, accept_after_ns_);
  if (!hub_.deadlines.empty()) until_ns = std::min(until_ns, hub_.deadlines.begin()->first);
  int64_t left_ns = until_ns - monotonic_ns();
  return left_ns <= 0 ? 0 : static_cast<int>((left_ns + 999'999) / 1'000'000);
}

void Loop::accept(Listener& listener) {
  for (int i = 0; i < kEvents; ++i) {
    std::string peer;
    int fd = listener.accept(peer);
    if (fd < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        pause_accepting();
      return;
    }
    if (connections_.size() >= hub_.limits.connections) {
      ::close(fd);
      continue;
    }
    auto connection = std::make_unique<Connection>(hub_, fd, std::move(peer));
    epoll_event watched{};
    watched.events = connection->interest = EPOLLIN;
    watched.data.fd = fd;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &watched) < 0) {
      hub_.unflushed.pop_back();
      ::close(fd);
      continue;
    }
    if (drain_begun_) connection->announce_end();
    connections_.emplace(fd, std::move(connection));
    hub_.counters.connections.fetch_add(1, std::memory_order_relaxed);
    hub_.counters.accepted.fetch_add(1, std::memory_order_relaxed);
  }
}

// Out of file descriptors: to be told again and again that somebody waits would keep us busy.
void Loop::pause_accepting() {
  accept_after_ns_ = hub_.now_ns + kAcceptPauseNs;
  for (const auto& listener : listeners_)
    epoll_ctl(epoll_, EPOLL_CTL_DEL, listener->fd(), nullptr);
}

void Loop::on_ready(Connection& connection, uint32_t events) {
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !receive(connection)) return close(connection);
  if (events & EPOLLOUT) connection.mark_unflushed();
}

// False once the peer has closed.
bool Loop::receive(Connection& connection) {
  for (int i = 0; i < kReadsARound; ++i) {
    ssize_t got = recv(connection.fd, buffer_.data(), buffer_.size(), 0);
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (got == 0) return false;
    auto size = static_cast<size_t>(got);
    hub_.counters.received_bytes.fetch_add(size, std::memory_order_relaxed);
    if (!connection.lingering && !connection.receive(buffer_.data(), size)) {
      flush(connection);  // says why, if it can
      linger(connection);
      return true;
    }
    if (size < buffer_.size() || connection.reads_paused()) break;
  }
  return true;
}

// False if the connection is broken or over.
bool Loop::flush(Connection& connection) {
  while (!connection.lingering) {
    if (connection.out.size() == connection.out_at) {
      connection.out.clear();
      connection.out_at = 0;
      if (!connection.send(connection.out)) return false;
      if (connection.out.empty()) break;
    }
    ssize_t sent = ::send(connection.fd, connection.out.data() + connection.out_at,
                          connection.out.size() - connection.out_at, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) return false;
      break;
    }
    connection.sent_ns = hub_.now_ns;
    connection.out_at += static_cast<size_t>(sent);
    hub_.counters.sent_bytes.fetch_add(static_cast<size_t>(sent), std::memory_order_relaxed);
  }
  if (connection.out.capacity() > 2 * kBufferBytes && connection.out.empty())
    connection.out.shrink_to_fit();
  if (!connection.lingering && connection.out.empty() && connection.done()) linger(connection);
  watch(connection);
  return true;
}

void Loop::watch(Connection& connection) {
  uint32_t wanted = 0;
  if (connection.lingering || !connection.reads_paused()) wanted |= EPOLLIN;
  if (!connection.lingering && !connection.out.empty()) wanted |= EPOLLOUT;
  if (wanted == connection.interest) return;
  epoll_event watched{};
  watched.events = connection.interest = wanted;
  watched.data.fd = connection.fd;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd, &watched);
}

// To close at once would throw away what was said last: the peer reads it first.
void Loop::linger(Connection& connection) {
  if (connection.lingering) return;
  connection.lingering = true;
  connection.linger_until_ns = hub_.now_ns + kLingerNs;
  shutdown(connection.fd, SHUT_WR);
  watch(connection);
}

void Loop::close(Connection& connection) {
  for (auto* list : {&hub_.unflushed, &flushing_})
    std::replace(list->begin(), list->end(), &connection, static_cast<Connection*>(nullptr));
  int fd = connection.fd;
  connections_.erase(fd);
  ::close(fd);
  hub_.counters.connections.fetch_sub(1, std::memory_order_relaxed);
}

void Loop::take_answers() {
  {
    std::lock_guard<std::mutex> lock(outbox_mutex_);
    taken_.swap(outbox_);
  }
  for (Answer& said : taken_) {
    if (Stream* stream = said.call->stream) stream->connection.answer(*stream, said);
    said.call->release();
  }
  taken_.clear();
}

void Loop::keep_deadlines() {
  while (!hub_.deadlines.empty() && hub_.deadlines.begin()->first <= hub_.now_ns) {
    Stream& stream = *hub_.deadlines.begin()->second;
    stream.connection.refuse(stream, 4, "Deadline Exceeded");
  }
}

void Loop::look_after_all() {
  looked_ns_ = hub_.now_ns;
  if (drain_begun_ && !drain_ended_ && hub_.now_ns >= end_ns_) {
    drain_ended_ = true;
    for (auto& [fd, connection] : connections_) connection->end();
  }
  std::vector<Connection*> over;
  for (auto& [fd, connection] : connections_) {
    bool goes_on = connection->lingering ? hub_.now_ns < connection->linger_until_ns
                                         : connection->look_after(hub_.now_ns);
    if (!goes_on) over.push_back(connection.get());
  }
  for (Connection* connection : over) close(*connection);
}

void Loop::begin_drain() {
  drain_begun_ = true;
  end_ns_ = hub_.now_ns + kDrainNoticeNs;
  for (const auto& listener : listeners_) {
    accept(*listener);  // who has connected already is answered
    epoll_ctl(epoll_, EPOLL_CTL_DEL, listener->fd(), nullptr);
    listener->close();
  }
  for (auto& [fd, connection] : connections_) connection->announce_end();
}

}  // namespace crossfade
