// ``Host``: the network thread as Python sees it.
#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "types.h"

namespace crossfade {

namespace {

struct PyHost {
  PyObject_HEAD
  Loop* loop;
};

PyHost* self_of(PyObject* object) { return reinterpret_cast<PyHost*>(object); }

bool read_methods(PyObject* list, std::vector<std::pair<std::string, bool>>& methods) {
  Ref iterator(PyObject_GetIter(list));
  if (!iterator) return false;
  while (Ref item{PyIter_Next(iterator.get())}) {
    const char* path = nullptr;
    int streaming = 0;
    if (!PyArg_ParseTuple(item.get(), "sp", &path, &streaming)) return false;
    methods.emplace_back(path, streaming != 0);
  }
  return !PyErr_Occurred();
}

bool read_addresses(PyObject* list, std::vector<std::string>& addresses) {
  Ref iterator(PyObject_GetIter(list));
  if (!iterator) return false;
  while (Ref item{PyIter_Next(iterator.get())}) {
    Ref bytes(PyUnicode_EncodeFSDefault(item.get()));
    if (!bytes) return false;
    addresses.emplace_back(PyBytes_AsString(bytes.get()));
  }
  return !PyErr_Occurred();
}

PyObject* host_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* kNames[] = {"addresses", "methods", "message_bytes", "held_bytes", "calls",
                                 "connections", nullptr};
  PyObject* addresses_list = nullptr;
  PyObject* list = nullptr;
  Py_ssize_t message_bytes = 0, held_bytes = 0, calls = 0, connections = 16384;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$Onnnn", const_cast<char**>(kNames), &addresses_list,
                                   &list, &message_bytes, &held_bytes, &calls, &connections))
    return nullptr;
  if (!list) {
    PyErr_SetString(PyExc_TypeError, "methods are missing");
    return nullptr;
  }
  if (message_bytes <= 0 || held_bytes <= 0 || calls <= 0 || connections <= 0) {
    PyErr_SetString(PyExc_ValueError, "limits are positive");
    return nullptr;
  }
  Limits limits;
  limits.message_bytes = static_cast<size_t>(message_bytes);
  limits.held_bytes = static_cast<size_t>(held_bytes);
  limits.calls = static_cast<size_t>(calls);
  limits.connections = static_cast<size_t>(connections);
  std::vector<std::pair<std::string, bool>> methods;
  std::vector<std::string> addresses;
  if (!read_methods(list, methods) || !read_addresses(addresses_list, addresses)) return nullptr;
  auto allocate = reinterpret_cast<allocfunc>(PyType_GetSlot(type, Py_tp_alloc));
  PyObject* object = allocate(type, 0);
  if (!object) return nullptr;
  try {
    self_of(object)->loop = new Loop(addresses, limits, std::move(methods));
  } catch (const std::exception& error) {
    Py_DECREF(object);
    PyErr_SetString(PyExc_OSError, error.what());
    return nullptr;
  }
  return object;
}

void host_dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  if (Loop* loop = self_of(object)->loop) {
    Py_BEGIN_ALLOW_THREADS
    delete loop;
    Py_END_ALLOW_THREADS
  }
  auto release = reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free));
  release(object);
  Py_DECREF(type);
}

PyObject* host_start(PyObject* object, PyObject*) {
  try {
    self_of(object)->loop->start();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_OSError, error.what());
    return nullptr;
  }
  Py_RETURN_NONE;
}

// next(most, timeout_s) -> list of calls; None once the host is closed.
PyObject* host_next(PyObject* object, PyObject* args) {
  Py_ssize_t most = 0;
  double timeout_s = 0;
  if (!PyArg_ParseTuple(args, "nd", &most, &timeout_s)) return nullptr;
  Loop* loop = self_of(object)->loop;
  Inbox& inbox = loop->hub().inbox;
  std::vector<Call*> calls, cancelled;
  auto timeout = std::chrono::nanoseconds(
      static_cast<int64_t>(std::clamp(timeout_s, 0.0, 3600.0) * 1e9));
  bool open;
  if (inbox.ready()) {
    open = inbox.take(static_cast<size_t>(most), std::chrono::nanoseconds(0), calls, cancelled);
  } else {
    Py_BEGIN_ALLOW_THREADS
    open = inbox.take(static_cast<size_t>(most), timeout, calls, cancelled);
    Py_END_ALLOW_THREADS
  }
  for (Call* call : cancelled) {
    run_callbacks(call);
    call->release();
  }
  if (!open) Py_RETURN_NONE;
  Ref list(PyList_New(static_cast<Py_ssize_t>(calls.size())));
  Py_ssize_t at = 0;
  for (Call* call : calls) {
    PyObject* made = make_call(object, loop, call);
    if (!made || !list) {
      Py_XDECREF(made);
      list.reset();
      continue;  // out of memory: the rest is failed as it is dropped
    }
    PyList_SetItem(list.get(), at++, made);
  }
  return list.release();
}

PyObject* host_drain(PyObject* object, PyObject*) {
  self_of(object)->loop->drain();
  Py_RETURN_NONE;
}

PyObject* host_close(PyObject* object, PyObject*) {
  Loop* loop = self_of(object)->loop;
  Py_BEGIN_ALLOW_THREADS
  loop->stop();
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

PyObject* host_counters(PyObject* object, PyObject*) {
  const Hub& hub = self_of(object)->loop->hub();
  auto value = [](const auto& counter) { return static_cast<unsigned long long>(counter.load()); };
  return Py_BuildValue(
      "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K}", "connections", value(hub.counters.connections),
      "accepted", value(hub.counters.accepted), "calls", value(hub.counters.calls), "refused",
      value(hub.counters.refused), "received_bytes", value(hub.counters.received_bytes),
      "sent_bytes", value(hub.counters.sent_bytes), "held_bytes", value(hub.held_bytes),
      "pending", value(hub.pending));
}

PyObject* host_port(PyObject* object, void*) {
  return PyLong_FromLong(self_of(object)->loop->port());
}

PyObject* host_pending(PyObject* object, void*) {
  return PyLong_FromSize_t(self_of(object)->loop->hub().pending.load());
}

PyMethodDef host_methods[] = {
    {"start", host_start, METH_NOARGS, "Accepts connections from now on."},
    {"next", host_next, METH_VARARGS,
     "next(most, timeout_s): up to so many complete calls, oldest first; None once closed."},
    {"drain", host_drain, METH_NOARGS, "Tells peers to go, and accepts no connection any more."},
    {"close", host_close, METH_NOARGS, "Cuts everything off."},
    {"counters", host_counters, METH_NOARGS, "Counts since the start, and what is there now."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef host_properties[] = {
    {"port", host_port, nullptr, "The port that is listened on; 0 for a Unix socket.", nullptr},
    {"pending", host_pending, nullptr, "Calls handed out and not answered.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot host_slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(host_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(host_dealloc)},
    {Py_tp_methods, host_methods},
    {Py_tp_getset, host_properties},
    {0, nullptr},
};

}  // namespace

PyType_Spec host_spec = {"crossfade_native._h2.Host", sizeof(PyHost), 0, Py_TPFLAGS_DEFAULT,
                         host_slots};

}  // namespace crossfade
