"""Messages of ``tf_server_files.proto``; the stub beside this file has their types."""

from crossfade.serving.wire import names

globals().update(names("tf_server_files.proto"))
