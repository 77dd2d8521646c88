// Header fields and statuses as nghttp2 and gRPC want them.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <string>
#include <string_view>

#include "stream.h"
#include "text.h"

namespace crossfade {

enum Status { kInvalidArgument = 3, kDeadlineExceeded = 4, kResourceExhausted = 8,
              kUnimplemented = 12 };

constexpr std::string_view kGrpc = "application/grpc";

inline nghttp2_nv field(std::string_view name, std::string_view value, uint8_t flags = 0) {
  auto bytes = [](std::string_view text) {
    return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
  };
  return {bytes(name), bytes(value), name.size(), value.size(), flags};
}

// One whose texts outlive the session.
inline nghttp2_nv constant(std::string_view name, std::string_view value) {
  return field(name, value, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE);
}

// The fields that end a call; the first ``count`` of them are there.
struct Trailers {
  explicit Trailers(const Stream& stream)
      : status(std::to_string(stream.status)), text(percent_encode(stream.text)) {
    fields[count++] = field("grpc-status", status);
    if (!text.empty()) fields[count++] = field("grpc-message", text);
    if (!stream.pushback_ms.empty())
      fields[count++] = field("grpc-retry-pushback-ms", stream.pushback_ms);
  }
  std::string status;
  std::string text;
  std::array<nghttp2_nv, 3> fields{};
  size_t count = 0;
};

}  // namespace crossfade
