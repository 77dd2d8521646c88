// ``Call``: one gRPC call as Python sees it. Answered once; failed if it is dropped.
#include <cstring>

#include "../core/text.h"
#include "types.h"

namespace crossfade {

PyObject* call_type = nullptr;

namespace {

// Up to here a message is handed over as bytes: parsers want those, and a copy is cheap.
constexpr size_t kCopiedBytes = 16u << 10;

struct PyCall {
  PyObject_HEAD
  PyObject* host;  // keeps the loop alive
  Loop* loop;
  Call* call;
  PyObject* message;  // made once
};

PyCall* self_of(PyObject* object) { return reinterpret_cast<PyCall*>(object); }

void post(PyCall* self, Answer&& said) {
  said.call = self->call;
  self->call->references.fetch_add(1, std::memory_order_relaxed);
  self->loop->post(std::move(said));
}

void clear_callbacks(Call* call) {
  Ref callbacks(static_cast<PyObject*>(std::exchange(call->callbacks, nullptr)));
}

// Posts the call's last word; false if it has been said.
bool finish(PyCall* self, Answer&& said) {
  if (self->call->answered.exchange(true)) return false;
  self->loop->hub().pending.fetch_sub(1, std::memory_order_relaxed);
  post(self, std::move(said));
  if (self->call->cancelled.load()) run_callbacks(self->call);  // its answer came in between
  clear_callbacks(self->call);
  return true;
}

std::string framed(const char* data, size_t size) {
  std::string out;
  out.reserve(size + 5);
  out += '\0';
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(size >> shift & 0xff);
  out.append(data, size);
  return out;
}

bool bytes_of(PyObject* message, std::string& out) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(message, &data, &size) < 0) return false;
  out = framed(data, static_cast<size_t>(size));
  return true;
}

int status_of(const char* code) {
  static constexpr const char* kCodes[] = {
      "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
      "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
      "UNAUTHENTICATED"};
  for (int status = 0; status < static_cast<int>(std::size(kCodes)); ++status)
    if (std::strcmp(code, kCodes[status]) == 0) return status;
  return 2;
}

// Reads code, message and retry_after_s of an error of Crossfade's.
bool read_error(PyObject* error, Answer& said) {
  Ref code(PyObject_GetAttrString(error, "code"));
  Ref name(code ? PyObject_GetAttrString(code.get(), "value") : nullptr);
  Ref text(name ? PyObject_GetAttrString(error, "message") : nullptr);
  Ref retry(text ? PyObject_GetAttrString(error, "retry_after_s") : nullptr);
  if (!retry) return false;
  Ref code_bytes(PyUnicode_AsUTF8String(name.get()));
  Ref text_bytes(code_bytes ? PyUnicode_AsEncodedString(text.get(), "utf-8", "replace") : nullptr);
  if (!text_bytes) return false;
  said.status = status_of(PyBytes_AsString(code_bytes.get()));
  said.text.assign(PyBytes_AsString(text_bytes.get()),
                   static_cast<size_t>(PyBytes_Size(text_bytes.get())));
  if (retry.get() != Py_None) {
    double seconds = PyFloat_AsDouble(retry.get());
    if (seconds == -1.0 && PyErr_Occurred()) return false;
    said.pushback_ms = std::to_string(std::max(1LL, static_cast<long long>(seconds * 1000 + 0.5)));
  }
  return true;
}

void call_dealloc(PyObject* object) {
  PyCall* self = self_of(object);
  if (self->call) {
    Answer said;
    said.kind = Answer::Kind::kFinish;
    said.status = 13;
    said.text = "the call was not answered";
    finish(self, std::move(said));
    clear_callbacks(self->call);
    Py_XDECREF(self->message);
    self->call->release();
  }
  Py_XDECREF(self->host);
  PyTypeObject* type = Py_TYPE(object);
  auto release = reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free));
  release(object);
  Py_DECREF(type);
}

PyObject* call_reply(PyObject* object, PyObject* message) {
  Answer said;
  if (!bytes_of(message, said.data)) return nullptr;
  finish(self_of(object), std::move(said));
  Py_RETURN_NONE;
}

PyObject* call_fail(PyObject* object, PyObject* error) {
  Answer said;
  said.kind = Answer::Kind::kFinish;
  if (!read_error(error, said)) return nullptr;
  finish(self_of(object), std::move(said));
  Py_RETURN_NONE;
}

PyObject* call_finish(PyObject* object, PyObject*) {
  Answer said;
  said.kind = Answer::Kind::kFinish;
  finish(self_of(object), std::move(said));
  Py_RETURN_NONE;
}

PyObject* call_is_set(PyObject* object, PyObject*) {
  return PyBool_FromLong(self_of(object)->call->cancelled.load());
}

PyObject* call_subscribe(PyObject* object, PyObject* callback) {
  Call* call = self_of(object)->call;
  if (call->answered.load()) Py_RETURN_NONE;
  if (!call->callbacks && !(call->callbacks = PyList_New(0))) return nullptr;
  if (PyList_Append(static_cast<PyObject*>(call->callbacks), callback) < 0) return nullptr;
  call->subscribed.store(true);
  if (call->cancelled.load()) run_callbacks(call);
  Py_RETURN_NONE;
}

// read() -> (message, whether it is compressed); None after the last, or when the caller is gone.
PyObject* call_read(PyObject* object, PyObject*) {
  PyCall* self = self_of(object);
  Channel* channel = self->call->channel.get();
  if (!channel) {
    PyErr_SetString(PyExc_TypeError, "a unary call has its message");
    return nullptr;
  }
  Message message;
  Py_BEGIN_ALLOW_THREADS
  std::unique_lock<std::mutex> lock(channel->mutex);
  channel->changed.wait(lock, [&] {
    return !channel->messages.empty() || channel->half_closed || self->call->cancelled.load();
  });
  if (!channel->messages.empty()) {
    message = std::move(channel->messages.front());
    channel->messages.pop_front();
  }
  Py_END_ALLOW_THREADS
  if (!message.begun()) Py_RETURN_NONE;
  Answer said;
  said.kind = Answer::Kind::kConsumed;
  post(self, std::move(said));
  return Py_BuildValue("(y#O)", reinterpret_cast<const char*>(message.data()),
                       static_cast<Py_ssize_t>(message.size()),
                       message.compressed() ? Py_True : Py_False);
}

// write(message) -> whether the caller is still there; waits while much is unsent.
PyObject* call_write(PyObject* object, PyObject* message) {
  PyCall* self = self_of(object);
  Channel* channel = self->call->channel.get();
  Answer said;
  said.kind = Answer::Kind::kMessage;
  if (!channel) {
    PyErr_SetString(PyExc_TypeError, "a unary call has one answer: reply");
    return nullptr;
  }
  if (!bytes_of(message, said.data)) return nullptr;
  bool gone;
  Py_BEGIN_ALLOW_THREADS
  std::unique_lock<std::mutex> lock(channel->mutex);
  channel->changed.wait(lock, [&] {
    return channel->unsent_bytes < kStreamUnsentBytes || self->call->cancelled.load();
  });
  gone = self->call->cancelled.load();
  if (!gone) channel->unsent_bytes += said.data.size();
  Py_END_ALLOW_THREADS
  if (!gone) post(self, std::move(said));
  return PyBool_FromLong(!gone);
}

PyObject* call_message(PyObject* object, void*) {
  PyCall* self = self_of(object);
  const Message& message = self->call->message;
  // A view refers to this call: to keep it would be a circle.
  if (message.size() > kCopiedBytes) return PyMemoryView_FromObject(object);
  if (!self->message)
    self->message = PyBytes_FromStringAndSize(reinterpret_cast<const char*>(message.data()),
                                              static_cast<Py_ssize_t>(message.size()));
  Py_XINCREF(self->message);
  return self->message;
}

PyObject* call_metadata(PyObject* object, void*) {
  Ref result(PyDict_New());
  if (!result) return nullptr;
  for (const auto& [name, value] : self_of(object)->call->metadata) {
    bool binary = name.size() > 4 && name.compare(name.size() - 4, 4, "-bin") == 0;
    Ref made;
    if (binary) {
      std::string decoded = base64_decode(value).value_or(std::string());
      made.reset(PyBytes_FromStringAndSize(decoded.data(), static_cast<Py_ssize_t>(decoded.size())));
    } else {
      made.reset(PyUnicode_DecodeLatin1(value.data(), static_cast<Py_ssize_t>(value.size()), nullptr));
    }
    if (!made || PyDict_SetItemString(result.get(), name.c_str(), made.get()) < 0) return nullptr;
  }
  return result.release();
}

PyObject* call_peer(PyObject* object, void*) {
  const std::string& peer = *self_of(object)->call->peer;
  return PyUnicode_FromStringAndSize(peer.data(), static_cast<Py_ssize_t>(peer.size()));
}

PyObject* call_encoding(PyObject* object, void*) {
  const std::string& encoding = self_of(object)->call->encoding;
  return PyUnicode_DecodeLatin1(encoding.data(), static_cast<Py_ssize_t>(encoding.size()), nullptr);
}

PyObject* call_compressed(PyObject* object, void*) {
  return PyBool_FromLong(self_of(object)->call->message.compressed());
}

PyObject* call_deadline_s(PyObject* object, void*) {
  int64_t deadline_ns = self_of(object)->call->deadline_ns;
  if (!deadline_ns) Py_RETURN_NONE;
  return PyFloat_FromDouble(static_cast<double>(deadline_ns) * 1e-9);
}

PyObject* call_method(PyObject* object, void*) {
  return PyLong_FromUnsignedLong(self_of(object)->call->method);
}

PyObject* call_cancelled(PyObject* object, void*) {
  Py_INCREF(object);
  return object;
}

int call_buffer(PyObject* object, Py_buffer* view, int flags) {
  const Message& message = self_of(object)->call->message;
  return PyBuffer_FillInfo(view, object, const_cast<uint8_t*>(message.data()),
                           static_cast<Py_ssize_t>(message.size()), 1, flags);
}

PyMethodDef call_methods[] = {
    {"reply", call_reply, METH_O, "Answers with OK and these bytes."},
    {"fail", call_fail, METH_O, "Answers with the status of this error."},
    {"finish", call_finish, METH_NOARGS, "Ends a stream with OK."},
    {"is_set", call_is_set, METH_NOARGS, "Whether the caller has gone."},
    {"subscribe", call_subscribe, METH_O, "Calls this once when the caller goes."},
    {"read", call_read, METH_NOARGS, "The next message of a stream and whether it is compressed."},
    {"write", call_write, METH_O, "Sends a message of a stream; False if the caller has gone."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef call_properties[] = {
    {"message", call_message, nullptr, "The request's bytes.", nullptr},
    {"compressed", call_compressed, nullptr, "Whether the message is compressed.", nullptr},
    {"encoding", call_encoding, nullptr, "By what messages are compressed.", nullptr},
    {"metadata", call_metadata, nullptr, "Lower-case keys; values of -bin are bytes.", nullptr},
    {"peer", call_peer, nullptr, "The caller's IP address, or unix.", nullptr},
    {"deadline_s", call_deadline_s, nullptr, "Value of time.monotonic(), or None.", nullptr},
    {"method", call_method, nullptr, "Index in the host's list of methods.", nullptr},
    {"cancelled", call_cancelled, nullptr, "This call, which says whether its caller went.",
     nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot call_slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(call_dealloc)},
    {Py_tp_methods, call_methods},
    {Py_tp_getset, call_properties},
    {Py_bf_getbuffer, reinterpret_cast<void*>(call_buffer)},
    {0, nullptr},
};

}  // namespace

PyType_Spec call_spec = {"crossfade_native._h2.Call", sizeof(PyCall), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, call_slots};

PyObject* make_call(PyObject* host, Loop* loop, Call* call) {
  static auto* const type = reinterpret_cast<PyTypeObject*>(call_type);
  static auto allocate = reinterpret_cast<allocfunc>(PyType_GetSlot(type, Py_tp_alloc));
  PyObject* object = allocate(type, 0);
  if (!object) {
    call->answered = true;
    loop->hub().pending.fetch_sub(1, std::memory_order_relaxed);
    call->release();
    return nullptr;
  }
  Py_INCREF(host);
  self_of(object)->host = host;
  self_of(object)->loop = loop;
  self_of(object)->call = call;
  return object;
}

void run_callbacks(Call* call) {
  while (call->callbacks) {
    auto* list = static_cast<PyObject*>(call->callbacks);
    Py_ssize_t size = PyList_Size(list);
    if (size <= 0) return;
    Ref callback(PyList_GetItem(list, 0));
    Py_INCREF(callback.get());
    PyList_SetSlice(list, 0, 1, nullptr);
    Ref result(PyObject_CallNoArgs(callback.get()));
    if (!result) PyErr_WriteUnraisable(callback.get());
  }
}

}  // namespace crossfade
