"""Traces by OpenTelemetry: the only module that knows its library. Needs the extra [otel]."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as OtelTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from crossfade import __version__
from crossfade.ensemble.plan import ANSWERED_BY, LEFT_OUT
from crossfade.runtimes.core.errors import CrossfadeError, escape
from crossfade.runtimes.core.model import InferResponse, InferResult
from crossfade.runtimes.trace import Span
from crossfade.serving.dataplane.door import Query
from crossfade.serving.transport.calls import HttpRequest

_log = logging.getLogger(__name__)
_EXPORTERS: Final = "opentelemetry.exporter"
_MAX_REASON: Final = 200
_PATH: Final = "/v1/traces"
_CONTEXT: Final = TraceContextTextMapPropagator()


class Tracing:
    """Begins spans; see ``Tracer``. Thread-safe.

    What of OpenTelemetry's environment variables is not said by an argument is taken from them.

    Args:
        exporter: where spans go, from a thread and a bounded queue of their own.
        sample_percent: of the requests that are not part of a trace already; ``None`` is what the
            environment says, else all.
        endpoint: where they go, for the log.
    """

    def __init__(
        self, exporter: SpanExporter, sample_percent: float | None = None, endpoint: str = ""
    ) -> None:
        sampler = None
        if sample_percent is not None:
            sampler = ParentBased(TraceIdRatioBased(sample_percent / 100))
        self._provider = TracerProvider(sampler, _resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Reported(exporter, endpoint)))
        self._tracer = self._provider.get_tracer("crossfade", __version__)

    def begin(self, query: Query, contract: str) -> Span:
        """See ``Tracer.begin``."""
        parent = Context()
        metadata = query.caller.metadata if query.caller is not None else {}
        if "traceparent" in metadata:
            # Repeated headers of HTTP are one by now; the library wants text.
            given = {name: str(metadata.get(name, "")) for name in ("traceparent", "tracestate")}
            parent = _CONTEXT.extract(given, parent)
        began = _Span(self._tracer, "infer", parent, SpanKind.SERVER)
        if began.recorded:
            began.say("model", escape(query.ref.name))
            began.say("contract", contract)
            began.say("transport", "http" if isinstance(query.caller, HttpRequest) else "grpc")
            if query.id:
                began.say("request_id", escape(query.id))
        return began

    def close(self, timeout_s: float) -> None:
        """Sends what is left, for so long at most."""
        flush = threading.Thread(target=self._provider.shutdown, name="traces-flush", daemon=True)
        flush.start()
        flush.join(timeout_s)


class _Span:
    """See ``Span``."""

    def __init__(self, tracer: OtelTracer, name: str, parent: Context, kind: SpanKind) -> None:
        self._tracer = tracer
        self._kind = kind
        self._began_ns = time.time_ns()
        self._span: OtelSpan = tracer.start_span(name, parent, kind, start_time=self._began_ns)
        self._is_leaf = True
        self.recorded = self._span.is_recording()

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        carrier: dict[str, str] = {}
        _CONTEXT.inject(carrier, self._context())
        return tuple(carrier.items())

    def child(self, name: str) -> Span:
        if not self.recorded:
            return self
        self._is_leaf = False
        return _Span(self._tracer, name, self._context(), SpanKind.INTERNAL)

    def end(self, result: InferResult | None) -> None:
        if not self.recorded:
            return
        now_ns = time.time_ns()
        self.say("status", "OK")
        if isinstance(result, CrossfadeError):  # its message may quote what the client sent
            self.say("status", result.code.name)
            self._span.set_status(Status(StatusCode.ERROR, result.code.name))
        elif result is not None:
            if self._kind is SpanKind.SERVER:
                self._span.update_name(f"infer {result.model.name}")
            self.say("model", result.model.name)
            self.say("version", result.model.version)
            for name in (LEFT_OUT, ANSWERED_BY):
                if name in result.parameters:
                    self.say(name, str(result.parameters[name]))
            if self._is_leaf:
                self._stages(result, now_ns)
        self._span.end(now_ns)

    def say(self, name: str, value: str | int) -> None:
        """Sets an attribute of ours."""
        self._span.set_attribute(f"crossfade.{name}", value)

    def _stages(self, response: InferResponse, end_ns: int) -> None:
        """Where the time went, as far as it was measured, from the answer backwards."""
        timings = response.timings
        for name, spent_ns in (
            ("postprocess", timings.output_ns),
            ("run", timings.infer_ns),
            ("queue", timings.queue_ns),
            ("preprocess", timings.input_ns),
        ):
            if not spent_ns:
                continue
            began_ns = max(self._began_ns, end_ns - spent_ns)
            stage = self._tracer.start_span(name, self._context(), start_time=began_ns)
            if name == "run":
                stage.set_attribute("crossfade.batch_rows", timings.batch_rows)
            stage.end(end_ns)
            end_ns = began_ns

    def _context(self) -> Context:
        return set_span_in_context(self._span, Context())


class _Reported(SpanExporter):
    """An exporter whose failures are one line in the log, until it works again."""

    def __init__(self, inner: SpanExporter, endpoint: str) -> None:
        self._inner = inner
        self._endpoint = endpoint
        self._failing = False
        self._said = _FirstSaid()
        logger = logging.getLogger(_EXPORTERS)
        logger.setLevel(logging.WARNING)
        logger.propagate = False  # it says of each try that it failed
        logger.handlers = [self._said]

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._said.reason = ""
        try:
            result = self._inner.export(spans)
        except Exception as error:
            result = SpanExportResult.FAILURE
            self._said.reason = _kind(error)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            _log.warning(
                "traces cannot be exported; they are dropped until they can",
                extra={"endpoint": self._endpoint, "reason": self._said.reason or "unknown"},
            )
        elif self._failing and not failing:
            _log.info("traces are exported again")
        self._failing = failing
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


class _FirstSaid(logging.Handler):
    """Why an export failed: the library tells its log alone, and the first line says most."""

    reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        errors = [each for each in record.args or () if isinstance(each, Exception)]
        said = _kind(errors[0]) if errors else record.getMessage()
        self.reason = self.reason or escape(said)[:_MAX_REASON]


def _kind(error: BaseException) -> str:
    """What was wrong in the first place, in the system's words: ``Connection refused``."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(getattr(error, "strerror", None) or type(error).__name__)


def over_http(endpoint: str, sample_percent: float | None) -> Tracing:
    """Traces that go to a collector by OTLP over HTTP.

    Args:
        endpoint: its URL, with or without ``/v1/traces``.
        sample_percent: see ``Tracing``.
    """
    # It quotes what clients send as a context.
    logging.getLogger("opentelemetry.trace").setLevel(logging.CRITICAL)
    url = endpoint.rstrip("/")
    url = url if url.endswith(_PATH) else url + _PATH
    return Tracing(OTLPSpanExporter(url), sample_percent, url)


def _resource() -> Resource:
    resource = Resource.create().merge(Resource({SERVICE_VERSION: __version__}))
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "crossfade"}))
    return resource
