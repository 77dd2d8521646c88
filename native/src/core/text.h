// The text forms of gRPC over HTTP/2. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace crossfade {

// Nanoseconds of a grpc-timeout such as "100m"; nothing if it is malformed.
std::optional<int64_t> parse_timeout(std::string_view text);

// A grpc-message: everything but printable ASCII, and '%', as %XX.
std::string percent_encode(std::string_view text);

// The bytes of a "-bin" value, with or without padding; nothing if it is no base64.
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace crossfade
