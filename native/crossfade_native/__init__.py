"""A gRPC host in native threads: HTTP/2, framing, deadlines and limits without Python's lock."""

from crossfade_native._h2 import NGHTTP2_VERSION, Call, Host

__all__ = ["NGHTTP2_VERSION", "Call", "Host"]
