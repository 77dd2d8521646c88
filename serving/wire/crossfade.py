"""Messages of ``crossfade.proto``; the stub beside this file has their types."""

from crossfade.serving.wire import names

globals().update(names("crossfade.proto"))
