// The way in of a connection: header fields and data become calls.
#include <algorithm>
#include <cstring>

#include "connection.h"
#include "fields.h"

namespace crossfade {

void Connection::on_head_field(Stream& stream, std::string_view name, std::string_view value) {
  stream.head_bytes += name.size() + value.size() + 32;
  if (stream.head_bytes > hub_.limits.metadata_bytes) {
    stream.metadata.clear();
    return;
  }
  if (name == ":path") {
    stream.path = value;
  } else if (name == ":method") {
    stream.is_post = value == "POST";
  } else if (name == "content-type") {
    stream.is_grpc = value.substr(0, kGrpc.size()) == kGrpc &&
                     (value.size() == kGrpc.size() || value[kGrpc.size()] == '+' ||
                      value[kGrpc.size()] == ';');
  } else if (name == "grpc-timeout") {
    stream.timeout_ns = parse_timeout(value);
  } else if (name == "grpc-encoding") {
    stream.encoding = value;
  } else if (!name.empty() && name[0] != ':' && name != "te" && name.substr(0, 5) != "grpc-") {
    stream.metadata.emplace_back(name, value);
  }
}

void Connection::on_head(Stream& stream) {
  if (stream.head_bytes > hub_.limits.metadata_bytes)
    return refuse(stream, kResourceExhausted, "the metadata is too large");
  if (!stream.is_post) return submit_http_error(stream, "405");
  if (!stream.is_grpc) return submit_http_error(stream, "415");
  auto found = hub_.methods.find(stream.path);
  if (found == hub_.methods.end()) return refuse(stream, kUnimplemented, "Method not found!");

  Call* call = stream.call = new Call;
  call->stream = &stream;
  call->method = found->second.index;
  call->metadata = std::move(stream.metadata);
  call->peer = peer_;
  call->encoding = stream.encoding;
  if (stream.timeout_ns) {
    call->deadline_ns = hub_.now_ns + *stream.timeout_ns;
    stream.deadline_at = hub_.deadlines.emplace(call->deadline_ns, &stream);
  }
  stream.streaming = found->second.streaming;
  if (stream.streaming) {
    call->channel = std::make_unique<Channel>();
    return publish(stream);
  }
  stream.waiting_at = hub_.waiting.insert(hub_.waiting.end(), &stream);
  if (hub_.waiting.size() > hub_.limits.waiting) {
    Stream& oldest = *hub_.waiting.front();
    oldest.connection.refuse(oldest, kResourceExhausted, "too many calls wait for their message");
  }
}

void Connection::consume(Stream& stream, size_t size) {
  nghttp2_session_consume_stream(session_, stream.id, size);
}

void Connection::on_data(Stream& stream, const uint8_t* data, size_t size) {
  stream.progress_ns = hub_.now_ns;
  if (stream.streaming && !stream.ignores_rest) {
    // While a message waits to be read, the window is not given back.
    bool behind;
    {
      std::lock_guard<std::mutex> lock(stream.call->channel->mutex);
      behind = !stream.call->channel->messages.empty();
    }
    if (behind) stream.unconsumed_bytes += size;
    else consume(stream, size);
  } else {
    consume(stream, size);
  }
  while (size && !stream.ignores_rest) {
    if (stream.complete) return refuse(stream, kUnimplemented, "exactly one message is due");
    if (stream.prefix_bytes < sizeof(stream.prefix)) {
      size_t taken = std::min(size, sizeof(stream.prefix) - stream.prefix_bytes);
      std::memcpy(stream.prefix + stream.prefix_bytes, data, taken);
      stream.prefix_bytes += taken;
      data += taken;
      size -= taken;
      if (stream.prefix_bytes < sizeof(stream.prefix)) return;
      const uint8_t* p = stream.prefix;
      size_t length = static_cast<size_t>(p[1]) << 24 | static_cast<size_t>(p[2]) << 16 |
                      static_cast<size_t>(p[3]) << 8 | p[4];
      if (p[0] > 1) return refuse(stream, kInvalidArgument, "these bytes are no message of gRPC");
      if (p[0] && stream.encoding != "gzip" && stream.encoding != "deflate")
        return refuse(stream, kUnimplemented, "messages may be compressed by gzip or deflate");
      if (length > hub_.limits.message_bytes)
        return refuse(stream, kResourceExhausted,
                      "Received message larger than max (" + std::to_string(length) + " vs. " +
                          std::to_string(hub_.limits.message_bytes) + ")");
      if (!stream.message.begin(length, p[0] == 1, hub_.held_bytes))
        return refuse(stream, kResourceExhausted, "there is no memory for the message", "1000");
    }
    size_t taken = std::min(size, stream.message.missing());
    if (hub_.held_bytes.load(std::memory_order_relaxed) + taken > hub_.limits.held_bytes)
      return refuse(stream, kResourceExhausted, "there is no memory for the message", "1000");
    if (taken) stream.message.append(data, taken);
    data += taken;
    size -= taken;
    if (!stream.message.missing()) on_message(stream);
  }
}

void Connection::on_message(Stream& stream) {
  if (!stream.streaming) {
    stream.complete = true;
    return;
  }
  Channel& channel = *stream.call->channel;
  {
    std::lock_guard<std::mutex> lock(channel.mutex);
    channel.messages.push_back(std::move(stream.message));
  }
  channel.changed.notify_all();
  stream.message = Message();
  stream.prefix_bytes = 0;
}

void Connection::on_half_close(Stream& stream) {
  if (stream.ignores_rest) return;
  bool cut = !stream.complete && (stream.prefix_bytes > 0 || stream.message.begun());
  if (cut) return refuse(stream, kInvalidArgument, "the message is cut short");
  if (stream.streaming) {
    Channel& channel = *stream.call->channel;
    {
      std::lock_guard<std::mutex> lock(channel.mutex);
      channel.half_closed = true;
    }
    channel.changed.notify_all();
    return;
  }
  if (!stream.complete) return refuse(stream, kUnimplemented, "exactly one message is due");
  stop_waiting(stream);
  stream.call->message = std::move(stream.message);
  publish(stream);
}

void Connection::publish(Stream& stream) {
  if (hub_.pending.load(std::memory_order_relaxed) >= hub_.limits.calls)
    return refuse(stream, kResourceExhausted, "too many calls are in flight", "100");
  hub_.pending.fetch_add(1, std::memory_order_relaxed);
  hub_.counters.calls.fetch_add(1, std::memory_order_relaxed);
  stream.call->references.fetch_add(1, std::memory_order_relaxed);
  hub_.ready.push_back(stream.call);
}

}  // namespace crossfade
