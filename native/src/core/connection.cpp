#include "connection.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "text.h"

namespace crossfade {

namespace {

enum Status { kInvalidArgument = 3, kDeadlineExceeded = 4, kResourceExhausted = 8,
              kUnimplemented = 12 };

constexpr std::string_view kGrpc = "application/grpc";

nghttp2_nv field(std::string_view name, std::string_view value, uint8_t flags = 0) {
  auto bytes = [](std::string_view text) {
    return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
  };
  return {bytes(name), bytes(value), name.size(), value.size(), flags};
}

nghttp2_nv constant(std::string_view name, std::string_view value) {
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

}  // namespace

struct Callbacks {
  static Connection& self(void* user) { return *static_cast<Connection*>(user); }
  static Stream* find(nghttp2_session* session, int32_t id) {
    return static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id));
  }

  static int begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    Connection& connection = self(user);
    auto stream = std::make_unique<Stream>(connection, frame->hd.stream_id);
    stream->progress_ns = connection.hub_.now_ns;
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream.get());
    connection.streams_.emplace(frame->hd.stream_id, std::move(stream));
    return 0;
  }

  static int header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                    size_t name_size, const uint8_t* value, size_t value_size, uint8_t,
                    void* user) {
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    if (Stream* stream = find(session, frame->hd.stream_id))
      self(user).on_head_field(*stream, {reinterpret_cast<const char*>(name), name_size},
                               {reinterpret_cast<const char*>(value), value_size});
    return 0;
  }

  static int frame_received(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    Connection& connection = self(user);
    const auto& head = frame->hd;
    if (head.type == NGHTTP2_SETTINGS) connection.greeted_ = true;
    if (head.type == NGHTTP2_PING && !(head.flags & NGHTTP2_FLAG_ACK)) connection.on_ping();
    if (head.type != NGHTTP2_HEADERS && head.type != NGHTTP2_DATA) return 0;
    Stream* stream = find(session, head.stream_id);
    if (!stream) return 0;
    if (head.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
      connection.on_head(*stream);
    if (head.flags & NGHTTP2_FLAG_END_STREAM) connection.on_half_close(*stream);
    return 0;
  }

  static int data(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t size,
                  void* user) {
    nghttp2_session_consume_connection(session, size);
    if (Stream* stream = find(session, id)) self(user).on_data(*stream, data, size);
    return 0;
  }

  static int frame_sent(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    Connection& connection = self(user);
    const auto& head = frame->hd;
    if (head.type == NGHTTP2_HEADERS || head.type == NGHTTP2_DATA) {
      connection.strikes_ = 0;
      connection.ping_ns_ = 0;
      // All is said: the client need not send the rest.
      if (head.flags & NGHTTP2_FLAG_END_STREAM &&
          nghttp2_session_get_stream_remote_close(session, head.stream_id) == 0)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, head.stream_id, NGHTTP2_NO_ERROR);
    }
    return 0;
  }

  static int stream_closed(nghttp2_session* session, int32_t id, uint32_t, void* user) {
    if (Stream* stream = find(session, id)) self(user).on_close(*stream);
    return 0;
  }

  static ssize_t read(nghttp2_session*, int32_t, uint8_t* buffer, size_t size, uint32_t* flags,
                      nghttp2_data_source* source, void*) {
    auto& stream = *static_cast<Stream*>(source->ptr);
    return stream.connection.read_out(stream, buffer, size, flags);
  }

  static nghttp2_session* make(Connection& connection) {
    nghttp2_session_callbacks* callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, frame_received);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, data);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, stream_closed);
    nghttp2_option* option;
    nghttp2_option_new(&option);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, kOutboundAcks);
    nghttp2_option_set_stream_reset_rate_limit(option, kResetBurst, kResetRate);
    nghttp2_session* session = nullptr;
    nghttp2_session_server_new2(&session, callbacks, &connection, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return session;
  }
};

Connection::Connection(Hub& hub, int fd, std::string peer)
    : fd(fd), hub_(hub), session_(Callbacks::make(*this)),
      peer_(std::make_shared<const std::string>(std::move(peer))), opened_ns_(hub.now_ns) {
  sent_ns = hub.now_ns;
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, hub.limits.streams_per_connection},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindow},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 1 << 20},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(hub.limits.metadata_bytes)},
  };
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kConnectionWindow);
  mark_unflushed();
}

Connection::~Connection() {
  // Streams that are still open are not closed by nghttp2 with the session.
  for (auto& [id, stream] : streams_) {
    stop_waiting(*stream);
    detach(*stream, true);
  }
  nghttp2_session_del(session_);
}

bool Connection::receive(const uint8_t* data, size_t size) {
  mark_unflushed();
  return nghttp2_session_mem_recv(session_, data, size) >= 0;
}

bool Connection::send(std::string& out) {
  while (out.size() < (256u << 10)) {
    const uint8_t* data = nullptr;
    ssize_t size = nghttp2_session_mem_send(session_, &data);
    if (size < 0) return false;
    if (size == 0) break;
    out.append(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
  }
  return true;
}

bool Connection::done() const {
  return !nghttp2_session_want_read(session_) && !nghttp2_session_want_write(session_);
}

void Connection::mark_unflushed() {
  if (unflushed) return;
  unflushed = true;
  hub_.unflushed.push_back(this);
}

void Connection::announce_end() {
  nghttp2_submit_shutdown_notice(session_);
  mark_unflushed();
}

void Connection::end() {
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE,
                        nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR,
                        nullptr, 0);
  mark_unflushed();
}

bool Connection::look_after(int64_t now_ns) {
  if (!greeted_ && now_ns - opened_ns_ > kPrefaceNs) return false;
  if (reads_paused() && now_ns - sent_ns > kStallNs) return false;
  for (auto& [id, stream] : streams_) {
    bool begun = stream->prefix_bytes > 0 || stream->message.begun();
    if (begun && !stream->complete && !stream->ignores_rest && !stream->streaming &&
        now_ns - stream->progress_ns > kStallNs)
      refuse(*stream, kDeadlineExceeded, "the message did not come");
  }
  return true;
}

void Connection::on_ping() {
  int64_t now_ns = hub_.now_ns;
  if (ping_ns_ && now_ns - ping_ns_ < kPingNs && ++strikes_ > kPingStrikes) {
    static constexpr char kText[] = "too_many_pings";
    nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(session_),
                          NGHTTP2_ENHANCE_YOUR_CALM, reinterpret_cast<const uint8_t*>(kText),
                          sizeof(kText) - 1);
    nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM);
  }
  ping_ns_ = now_ns;
}

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

void Connection::stop_waiting(Stream& stream) {
  if (stream.waiting_at) hub_.waiting.erase(*stream.waiting_at);
  stream.waiting_at.reset();
}

void Connection::detach(Stream& stream, bool cancelled) {
  if (stream.deadline_at) hub_.deadlines.erase(*stream.deadline_at);
  stream.deadline_at.reset();
  Call* call = stream.call;
  if (!call) return;
  stream.call = nullptr;
  call->stream = nullptr;
  if (cancelled && !call->answered.load()) {
    call->cancelled.store(true);
    if (call->subscribed.load()) {
      call->references.fetch_add(1, std::memory_order_relaxed);
      hub_.cancelled.push_back(call);
    }
  }
  if (call->channel) {
    { std::lock_guard<std::mutex> lock(call->channel->mutex); }
    call->cancelled.store(true);  // a writer that waits is not to wait any longer
    call->channel->changed.notify_all();
  }
  call->release();
}

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
  provider.read_callback = Callbacks::read;
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

void Connection::on_close(Stream& stream) {
  stop_waiting(stream);
  detach(stream, true);
  for (const std::string& part : stream.out) unsent_bytes_ -= part.size();
  unsent_bytes_ += stream.out_at;
  streams_.erase(stream.id);
}

}  // namespace crossfade
