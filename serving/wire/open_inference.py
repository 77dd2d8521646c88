"""Messages of ``open_inference.proto``; the stub beside this file has their types."""

from crossfade.serving.wire import names

globals().update(names("open_inference.proto"))
