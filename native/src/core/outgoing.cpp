// The way out of a connection: answers and refusals become header fields and data.
#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <utility>

#include "connection.h"
#include "fields.h"

namespace crossfade {

void Connection::refuse(Stream& stream, int status, std::string_view text,
                        std::string_view pushback_ms) {
  hub_.counters.refused.fetch_add(1, std::memory_order_relaxed);
  stop_waiting(stream);
  detach(stream, true);
  stream.ignores_rest = true;
  stream.message = Message();
  if (stream.finished) return;
  stream.finished = true;
  stream.status = status;
  stream.text = text;
  stream.pushback_ms = pushback_ms;
  if (!stream.head_sent) submit_status_only(stream);
  else if (stream.deferred) nghttp2_session_resume_data(session_, stream.id);
  mark_unflushed();
}

void Connection::submit_status_only(Stream& stream) {
  Trailers trailers(stream);
  std::array<nghttp2_nv, 6> fields{};
  size_t count = 0;
  fields[count++] = constant(":status", "200");
  fields[count++] = constant("content-type", kGrpc);
  fields[count++] = constant("grpc-accept-encoding", "identity, deflate, gzip");
  for (size_t i = 0; i < trailers.count; ++i) fields[count++] = trailers.fields[i];
  nghttp2_submit_response(session_, stream.id, fields.data(), count, nullptr);
  stream.head_sent = true;
}

void Connection::submit_http_error(Stream& stream, const char* status) {
  hub_.counters.refused.fetch_add(1, std::memory_order_relaxed);
  const nghttp2_nv fields[] = {constant(":status", status)};
  nghttp2_submit_response(session_, stream.id, fields, 1, nullptr);
  stream.ignores_rest = stream.finished = stream.head_sent = true;
  mark_unflushed();
}

void Connection::answer(Stream& stream, Answer& said) {
  if (said.kind == Answer::Kind::kConsumed) {
    if (stream.unconsumed_bytes) consume(stream, std::exchange(stream.unconsumed_bytes, 0));
    return mark_unflushed();
  }
  if (stream.finished) return;
  mark_unflushed();
  if (said.kind != Answer::Kind::kMessage) {
    stream.finished = stream.ignores_rest = true;
    stream.status = said.status;
    stream.text = std::move(said.text);
    stream.pushback_ms = std::move(said.pushback_ms);
    detach(stream, false);
  }
  if (!said.data.empty()) {
    unsent_bytes_ += said.data.size();
    stream.out.push_back(std::move(said.data));
  }
  if (stream.head_sent) {
    if (stream.deferred) {
      stream.deferred = false;
      nghttp2_session_resume_data(session_, stream.id);
    }
    return;
  }
  if (stream.finished && stream.out.empty()) return submit_status_only(stream);
  const nghttp2_nv fields[] = {
      constant(":status", "200"),
      constant("content-type", kGrpc),
      constant("grpc-accept-encoding", "identity, deflate, gzip"),
  };
  nghttp2_data_provider provider{};
  provider.source.ptr = &stream;
  provider.read_callback = [](nghttp2_session*, int32_t, uint8_t* buffer, size_t size,
                              uint32_t* flags, nghttp2_data_source* source, void*) -> ssize_t {
    auto& from = *static_cast<Stream*>(source->ptr);
    return from.connection.read_out(from, buffer, size, flags);
  };
  nghttp2_submit_response(session_, stream.id, fields, std::size(fields), &provider);
  stream.head_sent = true;
}

ssize_t Connection::read_out(Stream& stream, uint8_t* buffer, size_t size, uint32_t* flags) {
  size_t copied = 0;
  while (copied < size && !stream.out.empty()) {
    const std::string& first = stream.out.front();
    size_t taken = std::min(size - copied, first.size() - stream.out_at);
    std::memcpy(buffer + copied, first.data() + stream.out_at, taken);
    copied += taken;
    stream.out_at += taken;
    if (stream.out_at == first.size()) {
      stream.out.pop_front();
      stream.out_at = 0;
    }
  }
  unsent_bytes_ -= copied;
  if (copied && stream.call && stream.call->channel) {
    Channel& channel = *stream.call->channel;
    {
      std::lock_guard<std::mutex> lock(channel.mutex);
      channel.unsent_bytes -= std::min(copied, channel.unsent_bytes);
    }
    channel.changed.notify_all();
  }
  if (!stream.out.empty()) return static_cast<ssize_t>(copied);
  if (stream.finished) {
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    Trailers trailers(stream);
    nghttp2_submit_trailer(session_, stream.id, trailers.fields.data(), trailers.count);
  } else if (!copied) {
    stream.deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  return static_cast<ssize_t>(copied);
}

}  // namespace crossfade
