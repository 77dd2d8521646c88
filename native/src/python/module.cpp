// The extension module ``crossfade_native._h2``.
#include "types.h"

namespace {

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_h2", "A gRPC host in native threads.", -1,
                          nullptr, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__h2() {
  crossfade::Ref module(PyModule_Create(&definition));
  if (!module) return nullptr;
  crossfade::call_type = PyType_FromSpec(&crossfade::call_spec);
  if (!crossfade::call_type) return nullptr;
  crossfade::Ref host(PyType_FromSpec(&crossfade::host_spec));
  if (!host) return nullptr;
  if (PyModule_AddObjectRef(module.get(), "Call", crossfade::call_type) < 0) return nullptr;
  if (PyModule_AddObjectRef(module.get(), "Host", host.get()) < 0) return nullptr;
  const char* version = nghttp2_version(0)->version_str;
  if (PyModule_AddStringConstant(module.get(), "NGHTTP2_VERSION", version) < 0) return nullptr;
  return module.release();
}
