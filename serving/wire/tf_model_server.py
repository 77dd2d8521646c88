"""Messages of ``tf_model_server.proto``; the stub beside this file has their types."""

from crossfade.serving.wire import names

globals().update(names("tf_model_server.proto"))
