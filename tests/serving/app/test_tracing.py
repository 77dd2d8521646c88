"""What of a request is in its trace, and that traces never touch a request."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from crossfade.runtimes.core.errors import InvalidArgument, MissingExtra
from crossfade.runtimes.core.model import InferResponse, ModelMetadata, ModelRef, Timings
from crossfade.serving.app.telemetry import tracing
from crossfade.serving.app.tracing import Tracing
from crossfade.serving.config.server_config import ServerConfig
from crossfade.serving.dataplane.door import DataPlane, Query
from crossfade.serving.lifecycle.manager import Manager, Mode
from crossfade.serving.repository.source import LocalSource
from crossfade.serving.tensors.raw import RawTensor
from tests.serving.lifecycle.folders import Repository

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = 1234.5


class Caller:
    peer = "127.0.0.1"

    def __init__(self, **metadata: str) -> None:
        self.metadata: Mapping[str, str | bytes] = metadata


class Traced:
    """A door whose spans are kept."""

    def __init__(self, manager: Manager, sample_percent: float | None = None) -> None:
        self.kept = InMemorySpanExporter()
        self.tracing = Tracing(self.kept, sample_percent)
        self.plane = DataPlane(manager, self.tracing)

    def spans(self) -> dict[str, ReadableSpan]:
        self.tracing.close(10)
        found = self.kept.get_finished_spans()
        names = {span.name: span for span in found}
        assert len(names) == len(found)
        assert str(SECRET) not in "".join(span.to_json() for span in found)
        return names


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    models = Repository(tmp_path_factory.mktemp("traces") / "models")
    x = {"name": "x", "dtype": "FP32", "shape": [-1]}
    scores = {"inputs": [x], "outputs": [{"name": "y", "from": "x"}]}
    models.add("a", 1, **scores)
    models.add("b", 1, **scores)
    failing = {"code": "UNAVAILABLE", "when": {"input": "x", "value": SECRET}}
    models.add("shaky", 1, behaviour="fail", fail=failing, **scores)

    def ensemble(name: str, kind: str, *members: str, **keys: Any) -> None:
        named = [{"model": one} for one in members]
        models.configure(name, ensemble={"kind": kind, "members": named, **keys})

    ensemble("either", "fallback", "shaky", "a")
    ensemble("outer", "fallback", "either", "b")
    ensemble("most", "weighted", "shaky", "a", scores="values", quorum=1)
    manager = Manager([LocalSource(models.root)], Mode.NONE)
    manager.start()
    yield manager
    manager.close()


def query(name: str, caller: Caller | None = None, value: float = SECRET) -> Query:
    data = memoryview(bytearray(4))
    data.cast("f")[0] = value  # type: ignore[index]
    tensor = RawTensor("x", "FP32", (1,), bytes(data))
    return Query(ModelRef(name), [tensor], id="seven", caller=caller)


def parent_of(span: ReadableSpan, spans: Mapping[str, ReadableSpan]) -> str | None:
    own = {one.context.span_id: name for name, one in spans.items()}
    return own.get(span.parent.span_id) if span.parent else None


def said(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(f"crossfade.{name}")


def test_a_request_goes_on_with_its_callers_trace(manager: Manager) -> None:
    door = Traced(manager)
    caller = Caller(traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1")
    (answer,) = door.plane.infer([query("a", caller)], "open_inference")
    assert isinstance(answer, InferResponse)
    spans = door.spans()
    root, run = spans["infer a"], spans["run"]
    assert root.parent is not None
    assert root.parent.is_remote
    assert f"{root.parent.span_id:016x}" == PARENT
    assert {f"{one.context.trace_id:032x}" for one in spans.values()} == {TRACE}
    assert root.context.trace_state.get("vendor") == "1"
    wanted = {"model": "a", "version": 1, "contract": "open_inference", "transport": "grpc"}
    for name, value in {**wanted, "request_id": "seven", "status": "OK"}.items():
        assert said(root, name) == value
    assert parent_of(run, spans) == "infer a"
    assert said(run, "batch_rows") == 1
    assert root.start_time <= run.start_time <= run.end_time == root.end_time  # type: ignore[operator]


def test_members_nest(manager: Manager) -> None:
    door = Traced(manager)
    door.plane.infer([query("outer")])
    spans = door.spans()
    parents = {name: parent_of(span, spans) for name, span in spans.items()}
    assert parents == {
        "infer outer": None,
        "member either": "infer outer",
        "member shaky": "member either",
        "member a": "member either",
        "run": "member a",
    }
    failed = spans["member shaky"]
    assert failed.status.status_code is StatusCode.ERROR
    assert said(failed, "status") == "UNAVAILABLE"
    assert said(spans["member either"], "ensemble_member") == "a"


def test_who_was_left_out(manager: Manager) -> None:
    door = Traced(manager)
    door.plane.infer([query("most")])
    spans = door.spans()
    assert said(spans["infer most"], "ensemble_left_out") == "shaky"
    assert {parent_of(spans[f"member {name}"], spans) for name in ("shaky", "a")} == {"infer most"}


def test_requests_that_came_together_have_a_trace_each(manager: Manager) -> None:
    door = Traced(manager)
    door.plane.infer([query("a"), query("nobody"), query("b")])
    door.tracing.close(10)
    roots = [one for one in door.kept.get_finished_spans() if one.parent is None]
    assert len({one.context.trace_id for one in roots}) == 3
    codes = {said(one, "model"): said(one, "status") for one in roots}
    assert codes == {"a": "OK", "b": "OK", "nobody": "NOT_FOUND"}


def test_a_stream_is_one_span(manager: Manager) -> None:
    door = Traced(manager)
    assert len(list(door.plane.stream(query("a")))) == 1
    abandoned = door.plane.stream(query("b"))
    next(abandoned)
    abandoned.close()
    spans = door.spans()
    assert said(spans["infer a"], "status") == "OK"
    assert said(spans["infer"], "status") == "CANCELLED"


def test_stages_follow_each_other() -> None:
    kept = InMemorySpanExporter()
    tracer = Tracing(kept)
    span = tracer.begin(query("a"), "")
    time.sleep(0.01)
    timings = Timings(3_000_000, 2_000_000, 8, 1_000_000, 500_000)
    span.end(InferResponse({}, ModelMetadata("a", 1, "fake", {}), timings))
    tracer.close(10)
    *stages, root = sorted(kept.get_finished_spans(), key=lambda one: one.parent is None)
    stages.sort(key=lambda one: one.start_time or 0)
    assert [one.name for one in stages] == ["preprocess", "queue", "run", "postprocess"]
    spent = [(one.end_time or 0) - (one.start_time or 0) for one in stages]
    assert spent == [1_000_000, 3_000_000, 2_000_000, 500_000]
    ends = [one.end_time for one in stages]
    assert ends == [one.start_time for one in stages[1:]] + [root.end_time]


def test_the_caller_decides_first(manager: Manager) -> None:
    door = Traced(manager, sample_percent=0)
    for flag, name in (("00", "a"), ("01", "b")):
        caller = Caller(traceparent=f"00-{TRACE}-{PARENT}-{flag}")
        span = door.tracing.begin(query(name, caller), "")
        assert dict(span.headers)["traceparent"].startswith(f"00-{TRACE}-")
        assert dict(span.headers)["traceparent"].endswith(flag)
        door.plane.infer([query(name, caller), query("a")])
    assert set(door.spans()) == {"infer b", "run"}


HEADER = st.one_of(
    st.text(),
    st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True),
)


@given(
    HEADER, st.one_of(st.text(), st.from_regex(r"([a-z]+=[ -~]*,?)*", fullmatch=True)), st.text()
)
def test_any_context_is_taken(traceparent: str, tracestate: str, name: str) -> None:
    kept = InMemorySpanExporter()
    tracer = TRACERS.setdefault("any", Tracing(kept))
    asked = query(name, Caller(traceparent=traceparent, tracestate=tracestate))
    span = tracer.begin(asked, "")
    headers = dict(span.child("member").headers)
    assert len(headers["traceparent"]) == 55
    span.end(InvalidArgument(str(SECRET)))


TRACERS: dict[str, Tracing] = {}


class Broken(SpanExporter):
    """A collector that fails until it is mended, or never answers."""

    def __init__(self) -> None:
        self.broken = True
        self.hangs: threading.Event | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.hangs is not None:
            self.hangs.wait(30)
        if self.broken:
            raise ConnectionError("no")
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def test_failures_are_told_once(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    caplog.set_level(logging.INFO, "crossfade.serving.app.tracing")
    exporter = Broken()
    tracer = Tracing(exporter, endpoint="there")
    plane = DataPlane(manager, tracer)

    def told(wanted: list[str]) -> None:
        until_s = time.monotonic() + 20
        while [record.message.split(";")[0] for record in caplog.records] != wanted:
            assert time.monotonic() < until_s, caplog.records
            assert isinstance(plane.infer([query("a")])[0], InferResponse)
            time.sleep(0.01)

    failed = "traces cannot be exported"
    told([failed])
    assert (caplog.records[0].endpoint, caplog.records[0].reason) == ("there", "ConnectionError")
    for _ in range(20):
        assert isinstance(plane.infer([query("a")])[0], InferResponse)
    exporter.broken = False
    told([failed, "traces are exported again"])
    tracer.close(10)


def test_the_end_waits_for_nobody(manager: Manager) -> None:
    exporter = Broken()
    exporter.hangs = threading.Event()
    tracer = Tracing(exporter)
    DataPlane(manager, tracer).infer([query("a")])
    began_s = time.monotonic()
    tracer.close(0.2)
    assert time.monotonic() - began_s < 10
    exporter.hangs.set()


@pytest.mark.parametrize(
    "endpoint", ["collector:4317", "ftp://a", "http://", "http://a?b", "http://["]
)
def test_an_endpoint_that_is_none(endpoint: str) -> None:
    with pytest.raises(InvalidArgument, match="--otlp-endpoint"):
        tracing(ServerConfig((), otlp_endpoint=endpoint))


def test_off_by_default(tmp_path: Path) -> None:
    assert tracing(ServerConfig((str(tmp_path),))) is None
    with pytest.raises(InvalidArgument, match="needs --otlp-endpoint"):
        tracing(ServerConfig((), trace_sample_percent=1.0))


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtra, match=r"crossfade\[otel\]"):
        tracing(ServerConfig((), otlp_endpoint="http://127.0.0.1:4318"))
