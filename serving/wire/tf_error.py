"""Messages of ``tf_error.proto``; the stub beside this file has their types."""

from crossfade.serving.wire import names

globals().update(names("tf_error.proto"))
