#include "connection.h"

#include <iterator>

#include "fields.h"

namespace crossfade {

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

void Connection::on_close(Stream& stream) {
  stop_waiting(stream);
  detach(stream, true);
  for (const std::string& part : stream.out) unsent_bytes_ -= part.size();
  unsent_bytes_ += stream.out_at;
  streams_.erase(stream.id);
}

}  // namespace crossfade
