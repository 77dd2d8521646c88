"""Messages of ``tf_framework.proto``; the stub beside this file has their types."""

from crossfade.serving.wire import names

globals().update(names("tf_framework.proto"))
