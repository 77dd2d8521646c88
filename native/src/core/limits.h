// What a peer may make the server hold, spend or wait for.
#pragma once

#include <cstddef>
#include <cstdint>

namespace crossfade {

struct Limits {
  // A larger message is refused before it is received.
  size_t message_bytes = 64u << 20;
  // Bytes of messages that are being received or wait for Python, over all connections.
  size_t held_bytes = 512u << 20;
  // Calls that Python has and has not answered; one more is refused.
  size_t calls = 2048;
  // Calls whose message has not come. Of more than these the oldest is refused.
  size_t waiting = 1024;
  size_t connections = 16384;
  uint32_t streams_per_connection = 1000;
  // Names, values and 32 bytes for each field, as HTTP/2 counts.
  size_t metadata_bytes = 16u << 10;
};

// Windows: what a client may send before it hears from us.
constexpr int32_t kStreamWindow = 1 << 20;
constexpr int32_t kConnectionWindow = 16 << 20;
// A connection that has more than this to send is not read from.
constexpr size_t kUnsentBytes = 64u << 20;
// A stream's writer waits while more than this is unsent.
constexpr size_t kStreamUnsentBytes = 1u << 20;
// Preface and first settings are due within this time.
constexpr int64_t kPrefaceNs = 10'000'000'000;
// A message that has begun, and an answer that is waited for, go on within this time.
constexpr int64_t kStallNs = 60'000'000'000;
// Pings closer than this, with nothing sent in between, are strikes; after two the third ends it.
constexpr int64_t kPingNs = 10'000'000'000;
constexpr int kPingStrikes = 2;
// Resets that a connection may send: a bucket of so many, filled at so many a second.
constexpr uint64_t kResetBurst = 2000;
constexpr uint64_t kResetRate = 500;
constexpr size_t kOutboundAcks = 500;

}  // namespace crossfade
