// The Python types of this extension; limited API, so that one build serves all versions.
#pragma once

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <memory>

#include "../core/loop.h"

namespace crossfade {

// Owns a reference.
struct Unref {
  void operator()(PyObject* object) const { Py_XDECREF(object); }
};
using Ref = std::unique_ptr<PyObject, Unref>;

extern PyObject* call_type;
extern PyType_Spec call_spec;
extern PyType_Spec host_spec;

// A Python call for ``call``, whose reference it takes over, on a loop that ``host`` keeps alive.
PyObject* make_call(PyObject* host, Loop* loop, Call* call);

// Runs what Python wants to be told when the caller has gone; with the lock held.
void run_callbacks(Call* call);

}  // namespace crossfade
