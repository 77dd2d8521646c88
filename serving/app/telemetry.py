"""Whether requests are traced, decided without the library that does it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.extras import require
from crossfade.serving.config.server_config import ServerConfig

if TYPE_CHECKING:
    from crossfade.serving.app.tracing import Tracing

_URL: Final = re.compile(r"https?://([^\s/?#\[\]:@]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?(/[^\s?#]*)?")


def trace_rate(config: ServerConfig) -> int | None:
    """One of so many requests is traced, as Triton counts; ``None`` where none can be."""
    if config.otlp_endpoint is None:
        return None
    percent = 100.0 if config.trace_sample_percent is None else config.trace_sample_percent
    return round(100 / percent) if percent else 0


def tracing(config: ServerConfig) -> Tracing | None:
    """What traces requests; ``None`` where nobody wants that.

    Raises:
        InvalidArgument: the endpoint is not the URL of a collector.
        MissingExtra: the library is not installed.
    """
    if config.otlp_endpoint is None:
        if config.trace_sample_percent is not None:
            raise InvalidArgument("--trace-sample-percent needs --otlp-endpoint")
        return None
    if not _URL.fullmatch(config.otlp_endpoint):
        raise InvalidArgument("--otlp-endpoint must be a URL like http://127.0.0.1:4318")
    require("opentelemetry.exporter.otlp.proto.http.trace_exporter", "otel", "--otlp-endpoint")
    from crossfade.serving.app.tracing import over_http

    return over_http(config.otlp_endpoint, config.trace_sample_percent)
