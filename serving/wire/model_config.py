"""Messages of ``model_config.proto``; the stub beside this file has their types."""

from crossfade.serving.wire import names

globals().update(names("model_config.proto"))
