// The whole network thread under threads that call, vanish, answer and stop. For sanitizers.
//
//   races SECONDS
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../src/core/loop.h"

using namespace crossfade;

namespace {

std::atomic<bool> over{false};
std::atomic<uint64_t> answered{0};

// As Python does: takes calls, and answers them from this thread.
void work(Loop& loop) {
  std::vector<Call*> calls, cancelled;
  while (loop.hub().inbox.take(8, std::chrono::milliseconds(50), calls, cancelled)) {
    for (Call* call : cancelled) call->release();
    for (Call* call : calls) {
      call->subscribed = true;
      if (call->channel) {
        Channel& channel = *call->channel;
        for (;;) {
          std::unique_lock<std::mutex> lock(channel.mutex);
          channel.changed.wait(lock, [&] {
            return !channel.messages.empty() || channel.half_closed || call->cancelled.load();
          });
          if (channel.messages.empty()) break;
          channel.messages.pop_front();
          channel.unsent_bytes += 1000;
          lock.unlock();
          Answer consumed, message;
          consumed.kind = Answer::Kind::kConsumed;
          message.kind = Answer::Kind::kMessage;
          message.data = std::string("\0\0\0\3\343", 5) + std::string(995, 'x');
          for (Answer* said : {&consumed, &message}) {
            said->call = call;
            call->references++;
            loop.post(std::move(*said));
          }
        }
      }
      Answer said;
      said.call = call;
      said.kind = call->channel ? Answer::Kind::kFinish : Answer::Kind::kReply;
      if (!call->channel) said.data = std::string(205, 'x');
      if (!call->answered.exchange(true)) {
        loop.hub().pending--;
        call->references++;
        loop.post(std::move(said));
        answered++;
      }
      call->release();
    }
  }
}

ssize_t read_body(nghttp2_session*, int32_t, uint8_t* buffer, size_t, uint32_t* flags,
                  nghttp2_data_source*, void*) {
  static constexpr char kMessage[] = "\0\0\0\0\4abcd";
  std::copy(kMessage, kMessage + 9, buffer);
  *flags |= NGHTTP2_DATA_FLAG_EOF;
  return 9;
}

void call(nghttp2_session* session, const char* path, const char* timeout) {
  std::vector<std::pair<std::string, std::string>> fields = {
      {":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "x"},
      {"content-type", "application/grpc"}, {"grpc-timeout", timeout}};
  std::vector<nghttp2_nv> nvs;
  for (auto& [name, value] : fields)
    nvs.push_back({reinterpret_cast<uint8_t*>(name.data()),
                   reinterpret_cast<uint8_t*>(value.data()), name.size(), value.size(), 0});
  nghttp2_data_provider provider{};
  provider.read_callback = read_body;
  nghttp2_submit_request(session, nullptr, nvs.data(), nvs.size(), &provider, nullptr);
}

// Connects, makes some calls, hears some of the answers, and goes without a word.
void ask(int port, unsigned seed) {
  std::mt19937 engine(seed);
  while (!over) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) < 0) {
      close(fd);
      continue;
    }
    nghttp2_session_callbacks* callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session* session;
    nghttp2_session_client_new(&session, callbacks, nullptr);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, nullptr, 0);
    for (unsigned rounds = 1 + engine() % 20; rounds--;) {
      for (unsigned count = engine() % 10; count--;)
        call(session, engine() % 4 ? "/s/Unary" : "/s/Stream", engine() % 8 ? "9S" : "200u");
      const uint8_t* data;
      for (ssize_t size; (size = nghttp2_session_mem_send(session, &data)) > 0;)
        if (send(fd, data, static_cast<size_t>(size), MSG_NOSIGNAL) < 0) break;
      pollfd readable{fd, POLLIN, 0};
      if (poll(&readable, 1, static_cast<int>(engine() % 3)) > 0) {
        uint8_t buffer[16384];
        ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
        if (got <= 0 || nghttp2_session_mem_recv(session, buffer, static_cast<size_t>(got)) < 0)
          break;
      }
    }
    nghttp2_session_del(session);
    close(fd);
  }
}

void serve(double seconds, unsigned seed) {
  over = false;
  Loop loop({"127.0.0.1:0"}, Limits{}, {{"/s/Unary", false}, {"/s/Stream", true}});
  loop.start();
  std::vector<std::thread> workers, clients;
  for (int i = 0; i < 2; ++i) workers.emplace_back([&] { work(loop); });
  for (unsigned i = 0; i < 3; ++i) clients.emplace_back([&, i] { ask(loop.port(), seed + i); });
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  loop.drain();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  loop.stop();
  over = true;
  for (auto& thread : workers) thread.join();
  for (auto& thread : clients) thread.join();
  if (loop.hub().pending != 0) {
    std::fprintf(stderr, "calls are left\n");
    std::abort();
  }
}

}  // namespace

int main(int count, char** arguments) {
  double seconds = count > 1 ? std::atof(arguments[1]) : 5;
  for (unsigned life = 0; life < 5; ++life) serve(seconds / 5, life * 100);
  std::printf("%llu calls answered\n", static_cast<unsigned long long>(answered.load()));
  return answered > 100 ? 0 : 1;
}
