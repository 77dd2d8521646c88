"""Messages of ``tf_serving.proto``; the stub beside this file has their types."""

from crossfade.serving.wire import names

for _file in ("google/protobuf/any.proto", "google/protobuf/wrappers.proto", "tf_serving.proto"):
    globals().update(names(_file))
