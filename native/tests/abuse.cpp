// Feeds connections with calls whose bytes were bent, and answers at random. For sanitizers.
//
//   abuse SEED ROUNDS
//
// No sockets and no threads: a round is one connection, the same for the same seed.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../src/core/connection.h"

using namespace crossfade;

namespace {

std::mt19937_64 engine;

size_t below(size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(engine); }
bool chance(double share) { return std::bernoulli_distribution(share)(engine); }

void expect(bool holds, const char* otherwise) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", otherwise);
  std::abort();
}

std::string noise(size_t size) {
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(below(256));
  return out;
}

// A client that speaks well, before its bytes are bent.
class Client {
 public:
  Client() {
    nghttp2_session_callbacks* callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_client_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, nullptr, 0);
    if (chance(0.5))
      nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                            static_cast<int32_t>(1 + below(1 << 20)));
  }
  ~Client() { nghttp2_session_del(session_); }

  void act() {
    switch (below(8)) {
      case 0: nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr); break;
      case 1: nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, nullptr, 0); break;
      case 2:
        if (last_ > 0)
          nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE,
                                    static_cast<int32_t>(1 + 2 * below(static_cast<size_t>(last_ / 2 + 1))),
                                    NGHTTP2_CANCEL);
        break;
      default: call();
    }
  }

  std::string bytes() {
    std::string out;
    for (;;) {
      const uint8_t* data;
      ssize_t size = nghttp2_session_mem_send(session_, &data);
      if (size <= 0) return out;
      out.append(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
    }
  }

  void hear(const std::string& data) {
    nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(data.data()), data.size());
  }

 private:
  void call() {
    static const char* kPaths[] = {"/s/Unary", "/s/Stream", "/s/Nothing", ""};
    static const char* kTimeouts[] = {"1n", "5m", "99999999H", "x", ""};
    static const char* kEncodings[] = {"gzip", "deflate", "identity", "br"};
    std::vector<std::pair<std::string, std::string>> fields = {
        {":method", chance(0.95) ? "POST" : "GET"}, {":scheme", "http"},
        {":path", kPaths[chance(0.8) ? below(2) : below(4)]}, {":authority", "x"},
        {"content-type", chance(0.95) ? "application/grpc" : "text/html"}};
    if (chance(0.3)) fields.emplace_back("grpc-timeout", kTimeouts[below(5)]);
    if (chance(0.2)) fields.emplace_back("grpc-encoding", kEncodings[below(4)]);
    if (chance(0.2)) fields.emplace_back("x-data-bin", chance(0.5) ? "AAEC" : "!?");
    if (chance(0.05)) fields.emplace_back("x-large", std::string(below(20000), 'x'));
    std::vector<nghttp2_nv> nvs;
    for (auto& [name, value] : fields)
      nvs.push_back({reinterpret_cast<uint8_t*>(name.data()),
                     reinterpret_cast<uint8_t*>(value.data()), name.size(), value.size(), 0});
    bodies_.push_back(std::make_unique<std::string>());
    std::string& body = *bodies_.back();
    for (size_t count = below(4); count--;) {
      size_t size = chance(0.1) ? below(100'000) : below(200);
      size_t said = chance(0.9) ? size : below(1 << 17);
      body += static_cast<char>(chance(0.9) ? 0 : below(3));
      for (int shift = 24; shift >= 0; shift -= 8) body += static_cast<char>(said >> shift & 0xff);
      body += noise(size);
    }
    nghttp2_data_provider provider{};
    provider.source.ptr = &body;
    provider.read_callback = [](nghttp2_session*, int32_t, uint8_t* buffer, size_t size,
                                uint32_t* flags, nghttp2_data_source* source, void*) -> ssize_t {
      auto& left = *static_cast<std::string*>(source->ptr);
      size_t taken = std::min(size, left.size());
      std::memcpy(buffer, left.data(), taken);
      left.erase(0, taken);
      if (left.empty()) *flags |= NGHTTP2_DATA_FLAG_EOF;
      return static_cast<ssize_t>(taken);
    };
    int32_t id = nghttp2_submit_request(session_, nullptr, nvs.data(), nvs.size(), &provider, nullptr);
    if (id > 0) last_ = id;
  }

  nghttp2_session* session_ = nullptr;
  int32_t last_ = 0;
  std::vector<std::unique_ptr<std::string>> bodies_;
};

void bend(std::string& data) {
  if (data.empty() || chance(0.5)) return;
  for (size_t count = 1 + below(4); count--;) {
    size_t at = below(data.size());
    switch (below(5)) {
      case 0: data[at] = static_cast<char>(below(256)); break;
      case 1: data[at] = static_cast<char>(data[at] ^ 1 << below(8)); break;
      case 2: data.erase(at, 1 + below(20)); break;
      case 3: data.insert(at, noise(1 + below(20))); break;
      default: data.insert(at, data.substr(at, below(200)));
    }
    if (data.empty()) return;
  }
}

// What Python does with a call, in any order.
class Answers {
 public:
  explicit Answers(Hub& hub) : hub_(hub) {}
  ~Answers() {
    for (Call* call : calls_) call->release();
  }

  void take() {
    for (Call* call : hub_.ready) {
      call->subscribed = chance(0.3);
      calls_.push_back(call);
    }
    hub_.ready.clear();
    for (Call* call : hub_.cancelled) call->release();
    hub_.cancelled.clear();
  }

  void give() {
    if (calls_.empty()) return;
    size_t at = below(calls_.size());
    Call* call = calls_[at];
    Answer said;
    said.call = call;
    said.kind = call->channel ? static_cast<Answer::Kind>(1 + below(3)) : Answer::Kind::kReply;
    if (said.kind == Answer::Kind::kConsumed) {
      std::lock_guard<std::mutex> lock(call->channel->mutex);
      if (!call->channel->messages.empty()) call->channel->messages.pop_front();
    } else if (said.kind == Answer::Kind::kMessage || chance(0.7)) {
      said.data = noise(5 + (chance(0.1) ? below(300'000) : below(100)));
    } else {
      said.status = static_cast<int>(below(17));
      said.text = noise(below(40));
      said.pushback_ms = chance(0.3) ? "100" : "";
    }
    bool last = said.kind == Answer::Kind::kReply || said.kind == Answer::Kind::kFinish;
    if (last) {
      call->answered = true;
      hub_.pending--;
    }
    if (Stream* stream = call->stream) stream->connection.answer(*stream, said);
    if (!last) return;
    calls_.erase(calls_.begin() + static_cast<std::ptrdiff_t>(at));
    call->release();
  }

  size_t size() const { return calls_.size(); }

 private:
  Hub& hub_;
  std::vector<Call*> calls_;
};

void round() {
  Hub hub;
  hub.methods = {{"/s/Unary", {0, false}}, {"/s/Stream", {1, true}}};
  hub.limits.message_bytes = 64 << 10;
  hub.limits.held_bytes = 256 << 10;
  hub.limits.calls = 40;
  hub.limits.waiting = 10;
  hub.now_ns = 1'000'000'000;
  {
    Answers answers(hub);
    std::vector<std::unique_ptr<Client>> clients;
    std::vector<std::unique_ptr<Connection>> connections;
    for (size_t i = 0; i < 2; ++i) {
      clients.push_back(std::make_unique<Client>());
      connections.push_back(std::make_unique<Connection>(hub, -1, "127.0.0.1"));
    }
    for (size_t steps = 20 + below(60); steps--;) {
      size_t which = below(clients.size());
      if (!connections[which]) continue;
      Connection& connection = *connections[which];
      hub.now_ns += static_cast<int64_t>(below(2'000'000'000));
      for (size_t acts = below(6); acts--;) clients[which]->act();
      std::string data = clients[which]->bytes();
      bend(data);
      bool alive = true;
      for (size_t at = 0; at < data.size() && alive;) {
        size_t size = std::min(data.size() - at, 1 + below(20'000));
        alive = connection.receive(reinterpret_cast<const uint8_t*>(data.data()) + at, size);
        at += size;
      }
      while (!hub.deadlines.empty() && hub.deadlines.begin()->first <= hub.now_ns) {
        Stream& stream = *hub.deadlines.begin()->second;
        stream.connection.refuse(stream, 4, "Deadline Exceeded");
      }
      answers.take();
      for (size_t count = below(8); count--;) answers.give();
      std::string out;
      alive = connection.send(out) && connection.look_after(hub.now_ns) && alive;
      clients[which]->hear(out);
      if (chance(0.02)) connection.announce_end();
      if (chance(0.02)) connection.end();
      for (Connection* marked : hub.unflushed) marked->unflushed = false;
      hub.unflushed.clear();
      if (!alive || chance(0.02)) connections[which].reset();
      answers.take();
    }
    connections.clear();
    answers.take();
    expect(hub.waiting.empty() && hub.deadlines.empty(), "streams are left");
    while (answers.size()) answers.give();
  }
  expect(hub.pending == 0, "calls are left");
  expect(hub.held_bytes == 0, "bytes are left");
}

}  // namespace

int main(int count, char** arguments) {
  unsigned long long seed = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 1;
  unsigned long long rounds = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 1000;
  for (unsigned long long i = 0; i < rounds; ++i) {
    engine.seed(seed + i);
    round();
  }
  std::printf("%llu rounds from seed %llu\n", rounds, seed);
  return 0;
}
