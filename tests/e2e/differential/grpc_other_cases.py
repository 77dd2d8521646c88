"""Everything over gRPC but inference: names, versions, repository, memory, settings."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from tests.e2e.differential.grpc_infer_cases import simple
from tests.e2e.differential.models import TWINS
from tests.e2e.differential.peers import Case, Outcome, Peer

# What a model is run by is not compared: it is not the same on purpose.
CONFIG = (
    "name", "version_policy", "max_batch_size", "dynamic_batching", "sequence_batching",
    "model_transaction_policy",
)  # fmt: skip
VERSIONS = {
    "latest": "", "1": "1", "3": "3", "2": "2", "0": "0", "x": "x", "01": "01", "plus": "+1",
    "negative": "-1", "blank": " ", "blank-before": " 1", "blank-after": "1 ", "decimal": "1.0",
    "hex": "0x1", "text-after": "1x", "2^63-1": str(2**63 - 1), "2^63": str(2**63),
    "2^64": str(2**64), "2^70": str(2**70), "parents": "../1", "nul": "1\0",
}  # fmt: skip
NAMES = {
    "unknown": "nobody", "empty": "", "parents": "../simple", "absolute": "/simple",
    "case": "Simple",
    "blank": " ", "nul": "spare\0evil", "right-to-left": "\u202esimple", "control": "simple\r\n",
    "long": "n" * 5000,
}  # fmt: skip


def of_config(answer: Any) -> Any:
    """What counts of a ``ModelConfigResponse``."""
    config = answer.config
    facts = [str(getattr(config, name)) for name in CONFIG]
    inputs = [(t.name, t.data_type, list(t.dims), t.optional) for t in config.input]
    outputs = [(t.name, t.data_type, list(t.dims), t.label_filename) for t in config.output]
    return facts, inputs, outputs


def of_metadata(answer: Any) -> Any:
    """What counts of a ``ModelMetadataResponse``."""
    tensors = [
        [(t.name, t.datatype, list(t.shape)) for t in part]
        for part in (answer.inputs, answer.outputs)
    ]
    return answer.name, sorted(answer.versions), tensors


def of_statistics(answer: Any) -> Any:
    """What counts of a ``ModelStatisticsResponse``: how often, not how long."""
    return [
        (
            stats.name, stats.version, stats.inference_count, stats.execution_count,
            stats.inference_stats.success.count, stats.inference_stats.fail.count,
            stats.inference_stats.queue.count, stats.inference_stats.compute_infer.count,
            [(batch.batch_size, batch.compute_infer.count) for batch in stats.batch_stats],
            stats.last_inference > 0,
        )
        for stats in answer.model_stats
    ]  # fmt: skip


def of_index(answer: Any) -> Any:
    """What counts of a ``RepositoryIndexResponse``."""
    return sorted((m.name, m.version, m.state, bool(m.reason)) for m in answer.models)


def served(answer: Any) -> Any:
    """Which versions have statistics."""
    return sorted((stats.name, stats.version) for stats in answer.model_stats)


def one(name: str, method: str, message: Any, view: Callable[[Any], Any] = str) -> Case:
    return Case(f"grpc/{name}", lambda peer: [peer.call(method, message, view=view)])


VIEWS: dict[str, Callable[[Any], Any]] = {
    "ModelReady": lambda answer: answer.ready,
    "ModelMetadata": of_metadata,
    "ModelConfig": of_config,
    "ModelStatistics": served,
}


def named() -> Iterator[Case]:
    """Every call that names a model or a version, with all kinds of both."""
    for method, view in VIEWS.items():
        kind = getattr(pb, f"{method}Request")
        for name, version in VERSIONS.items():
            message = kind(name="versions", version=version)
            yield one(f"version/{name}/{method}", method, message, view)
        for name, text in NAMES.items():
            yield one(f"name/{name}/{method}", method, kind(name=text), view)
        for twin in TWINS:
            yield one(f"model/{twin.name}/{method}", method, kind(name=twin.name), view)
    for name, version in VERSIONS.items():
        made = simple(model_version=version)
        yield Case(f"grpc/version/{name}/ModelInfer", lambda peer, r=made: [peer.infer(r)])
    for name, text in NAMES.items():
        made = simple(model=text)
        yield Case(f"grpc/name/{name}/ModelInfer", lambda peer, r=made: [peer.infer(r)])
        for verb in ("Load", "Unload"):
            message = getattr(pb, f"RepositoryModel{verb}Request")(model_name=text)
            yield _then_restored(f"name/{name}/{verb}", f"RepositoryModel{verb}", message)
    yield one("statistics/all", "ModelStatistics", pb.ModelStatisticsRequest(), served)


def _then_restored(name: str, method: str, message: Any) -> Case:
    """A call after which ``spare`` is there again: Triton reads a name up to its NUL."""

    def run(peer: Peer) -> list[Outcome]:
        found = [peer.call(method, message)]
        peer.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="spare"))
        return found

    return Case(f"grpc/{name}", run)


def server() -> Iterator[Case]:
    yield one("server/live", "ServerLive", pb.ServerLiveRequest())
    yield one("server/ready", "ServerReady", pb.ServerReadyRequest())
    yield one("server/name", "ServerMetadata", pb.ServerMetadataRequest(), lambda a: a.name)
    health = "/grpc.health.v1.Health/Check"
    for name, service in (
        ("", b""),
        ("unknown", b"nobody"),
        ("own", b"inference.GRPCInferenceService"),
    ):
        message = b"\x0a" + bytes([len(service)]) + service if service else b""
        yield Case(
            f"grpc/health/{name or 'server'}",
            lambda peer, m=message: [peer.call(health, m, view=lambda raw: raw)],
        )
    for name, path in (("unknown", "Nothing"), ("case", "serverlive"), ("service", "/nobody.S/Do")):
        yield Case(f"grpc/rpc/{name}", lambda peer, p=path: [peer.call(p, b"")])
    for name, message in {
        "noise": bytes(range(255, 0, -1)), "cut": simple().SerializeToString()[:-5],
        "bad-utf-8": b"\x0a\x04\xff\xfe\xfd\xfc", "empty": b"", "unknown-field": b"\xf8\x07\x01",
    }.items():  # fmt: skip
        yield Case(f"grpc/message/{name}", lambda peer, m=message: [peer.infer(m)])


def statistics() -> Iterator[Case]:
    def run(peer: Peer) -> list[Outcome]:
        message = pb.ModelStatisticsRequest(name="counted")
        before = peer.call("ModelStatistics", message, view=of_statistics)
        for rows in (1, 1, 4):
            shapes = [(f"INPUT{i}", "INT32", [rows, 16]) for i in range(2)]
            peer.infer(simple(model="counted", inputs=shapes, raws=[bytes(64 * rows)] * 2))
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s:  # Triton counts beside its answers
            after = peer.call("ModelStatistics", message, view=of_statistics)
            if after.value[0][2] == before.value[0][2] + 6:
                break
        return [before, after]

    yield Case("grpc/statistics/counts", run)

    def failures(peer: Peer) -> list[Outcome]:
        def count(answer: Any) -> Any:
            return [
                (s.inference_stats.success.count, s.inference_stats.fail.count)
                for s in answer.model_stats
            ]

        message = pb.ModelStatisticsRequest(name="echo_INT16")
        before = peer.call("ModelStatistics", message, view=count).value[0]
        bad = simple(model="echo_INT16")
        peer.infer(bad)
        after = peer.call("ModelStatistics", message, view=count).value[0]
        return [Outcome("OK", [b - a for a, b in zip(before, after, strict=True)])]

    yield Case("grpc/statistics/a-refused-request", failures)


def repository() -> Iterator[Case]:
    def load(name: str, **parameters: Any) -> Any:
        made = pb.RepositoryModelLoadRequest(model_name=name)
        for key, choice in parameters.items():
            made.parameters[key].CopyFrom(pb.ModelRepositoryParameter(**choice))
        return made

    def index(peer: Peer, **fields: Any) -> Outcome:
        return peer.call("RepositoryIndex", pb.RepositoryIndexRequest(**fields), view=of_index)

    yield Case("grpc/index/all", lambda peer: [index(peer)])
    yield Case("grpc/index/ready", lambda peer: [index(peer, ready=True)])
    yield Case("grpc/index/repository", lambda peer: [index(peer, repository_name="x")])

    def about(peer: Peer) -> list[Outcome]:
        ready = pb.ModelReadyRequest(name="counted")
        message = pb.RepositoryIndexRequest()

        def lines(answer: Any) -> Any:
            return [line for line in of_index(answer) if line[0] == "counted"]

        return [
            peer.call("ModelReady", ready, view=lambda a: a.ready),
            peer.infer(simple(model="counted")),
            peer.call("ModelMetadata", pb.ModelMetadataRequest(name="counted"), view=of_metadata),
            peer.call("ModelConfig", pb.ModelConfigRequest(name="counted"), view=of_config),
            peer.call("ModelStatistics", pb.ModelStatisticsRequest(name="counted"), view=served),
            peer.call("RepositoryIndex", message, view=lines),
        ]

    def wait(peer: Peer) -> None:
        """Unloading ends beside the call."""
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s:
            found = peer.call("RepositoryIndex", pb.RepositoryIndexRequest(), view=of_index).value
            if ("counted", "1", "UNAVAILABLE", True) in found:
                return

    def cycle(peer: Peer) -> list[Outcome]:
        unload = pb.RepositoryModelUnloadRequest(model_name="counted")
        found = [peer.call("RepositoryModelUnload", unload)]
        wait(peer)
        found += about(peer)
        found += [peer.call("RepositoryModelUnload", unload)]
        found += [peer.call("RepositoryModelLoad", load("counted")), *about(peer)]
        return [*found, peer.call("RepositoryModelLoad", load("counted")), *about(peer)]

    yield Case("grpc/load/cycle", cycle)

    def override(peer: Peer) -> list[Outcome]:
        """A smaller batch, until the next plain load."""
        given = json.dumps(
            {
                "name": "counted",
                "max_batch_size": 4,
                "input": [_declared(f"INPUT{i}") for i in range(2)],
                "output": [_declared(f"OUTPUT{i}") for i in range(2)],
                "instance_group": [{"kind": "KIND_CPU", "count": 1}],
                "parameters": {"behaviour": {"string_value": "addsub"}},
            }
        )
        config = pb.ModelConfigRequest(name="counted")
        shapes = [(f"INPUT{i}", "INT32", [5, 16]) for i in range(2)]
        five = simple(model="counted", inputs=shapes, raws=[bytes(320)] * 2)
        found = []
        for made in (load("counted", config={"string_param": given}), load("counted")):
            found += [
                peer.call("RepositoryModelLoad", made),
                peer.infer(simple(model="counted")),
                peer.infer(five),
                peer.call("ModelConfig", config, view=of_config),
            ]
        return found

    yield Case("grpc/load/override", override)
    data, config = {"bytes_param": b"x"}, {"string_param": "{}"}
    for name, made in {
        "broken": load("broken"),
        "file-alone": load("counted", **{"file:1/model.py": data}),
        "file-outside": load("counted", config=config, **{"file:1/../../x": data}),
        "unknown-parameter": load("counted", anything={"string_param": "x"}),
        "config-number": load("counted", config={"int64_param": 1}),
        "config-no-json": load("counted", config={"string_param": "{"}),
        "config-list": load("counted", config={"string_param": "[]"}),
        "config-unknown-field": load("counted", config={"string_param": '{"nothing": 1}'}),
        "config-empty": load("counted", config={"string_param": ""}),
        "repository": pb.RepositoryModelLoadRequest(model_name="counted", repository_name="x"),
    }.items():
        yield one(f"load/{name}", "RepositoryModelLoad", made)
    made = pb.RepositoryModelUnloadRequest(model_name="counted", repository_name="x")
    yield one("unload/repository", "RepositoryModelUnload", made)
    yield one("load/afterwards", "RepositoryModelLoad", load("counted"))


def memory() -> Iterator[Case]:
    for kind in ("System", "Cuda"):
        status = getattr(pb, f"{kind}SharedMemoryStatusRequest")
        unregister = getattr(pb, f"{kind}SharedMemoryUnregisterRequest")
        register = getattr(pb, f"{kind}SharedMemoryRegisterRequest")
        fields = {"key": "/nobody"} if kind == "System" else {"raw_handle": bytes(64)}
        for name, verb, message in (
            ("status-all", "Status", status()),
            ("status-unknown", "Status", status(name="nobody")),
            ("unregister-all", "Unregister", unregister()),
            ("unregister-unknown", "Unregister", unregister(name="nobody")),
            ("register-nothing-there", "Register", register(name="r", byte_size=64, **fields)),
            ("register-no-name", "Register", register(name="", byte_size=64, **fields)),
            ("register-no-size", "Register", register(name="r", byte_size=0, **fields)),
        ):
            yield one(f"memory/{kind.lower()}/{name}", f"{kind}SharedMemory{verb}", message)


def _declared(name: str) -> dict[str, Any]:
    return {"name": name, "data_type": "TYPE_INT32", "dims": [16]}


KEY = f"/cf_client_differential_{os.getpid()}"


def region() -> Iterator[Case]:
    """A real region: inputs from it, an output into it, and bounds that it does not have."""

    def request(offset: int, size: int, region: str = "r", into: int = 0) -> Any:
        made = simple()
        del made.raw_input_contents[:]
        for tensor in made.inputs:
            _place(tensor.parameters, region, offset, size)
        if into:
            made.outputs.add(name="OUTPUT0")
            _place(made.outputs[0].parameters, region, 64, into)
        return made

    def register(name: str, key: str = KEY, offset: int = 0, size: int = 128) -> Any:
        return pb.SystemSharedMemoryRegisterRequest(
            name=name, key=key, offset=offset, byte_size=size
        )

    def run(peer: Peer) -> list[Outcome]:
        path = Path("/dev/shm" + KEY)
        path.write_bytes(np.arange(32, dtype=np.int32).tobytes())
        status = pb.SystemSharedMemoryStatusRequest
        calls = (
            register("r"), register("r"), register("beyond", size=4096),
            register("s", offset=64, size=64),
            register("past", offset=4096, size=64), status(), status(name="s"),
        )  # fmt: skip
        try:
            found = [peer.call(type(call).__name__.removesuffix("Request"), call) for call in calls]
            found += [
                peer.infer(request(*where))
                for where in ((0, 64), (64, 64), (0, 32), (0, 128), (65, 64), (-1, 64), (2**62, 64))
            ]
            found += [peer.infer(request(0, 64, "nobody")), peer.infer(request(0, 64, "r", 32))]
            found += [peer.infer(request(0, 64, "r", 64)), Outcome("memory", path.read_bytes())]
            unregister = pb.SystemSharedMemoryUnregisterRequest()
            found += [peer.call("SystemSharedMemoryUnregister", unregister)]
            return [
                *found,
                peer.infer(request(0, 64)),
                peer.call("SystemSharedMemoryStatus", status()),
            ]
        finally:
            path.unlink()

    yield Case("grpc/memory/region", run)


def _place(parameters: Any, region: str, offset: int, size: int) -> None:
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_offset"].int64_param = offset
    parameters["shared_memory_byte_size"].int64_param = size


def settings() -> Iterator[Case]:
    def log(**values: Any) -> Any:
        made = pb.LogSettingsRequest()
        for name, (field, value) in values.items():
            setattr(made.settings[name], field, value)
        return made

    def trace(model: str = "", **values: list[str]) -> Any:
        made = pb.TraceSettingRequest(model_name=model)
        for name, texts in values.items():
            made.settings[name].value.extend(texts)
        return made

    def keys(answer: Any) -> Any:
        return sorted(answer.settings)

    for name, made in {
        "read": log(),
        "verbose": log(log_verbose_level=("uint32_param", 1)),
        "verbose-off": log(log_verbose_level=("uint32_param", 0)),
        "info": log(log_info=("bool_param", True)),
        "wrong-kind": log(log_info=("string_param", "yes")),
        "verbose-text": log(log_verbose_level=("string_param", "1")),
        "file": log(log_file=("string_param", "/nowhere/x")),
        "format": log(log_format=("string_param", "ISO8601")),
        "format-unknown": log(log_format=("string_param", "x")),
        "unknown": log(nothing=("bool_param", True)),
    }.items():
        yield one(f"log/{name}", "LogSettings", made, keys)
    for name, made in {
        "read": trace(),
        "read-model": trace("simple"),
        "unknown-model": trace("nobody"),
        "off": trace(trace_level=["OFF"]),
        "level-unknown": trace(trace_level=["x"]),
        "rate": trace(trace_rate=["1000"]),
        "rate-text": trace(trace_rate=["x"]),
        "file": trace(trace_file=["/nowhere/x"]),
        "unknown": trace(nothing=["1"]),
        "clear": trace(trace_level=[]),
    }.items():
        yield one(f"trace/{name}", "TraceSetting", made, keys)


def cases() -> list[Case]:
    """All of them; what changes the server comes last."""
    parts = (named, server, statistics, memory, region, settings, repository)
    return [case for part in parts for case in part()]
