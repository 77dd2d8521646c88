"""Builds a server of a configuration: repository, lifecycle, data plane, front ends, hosts."""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import re
import threading
import time
from collections.abc import Iterable, Mapping

from prometheus_client.core import Metric

from crossfade import __version__
from crossfade.runtimes import trust
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.app import on_vertex
from crossfade.serving.app.loading import loading
from crossfade.serving.app.security import certificates, guard
from crossfade.serving.app.telemetry import trace_rate, tracing
from crossfade.serving.app.transports import choose, grpc_host
from crossfade.serving.config.server_config import ServerConfig
from crossfade.serving.dataplane.door import DataPlane
from crossfade.serving.fade import adaptations
from crossfade.serving.fade import metrics as fade_metrics
from crossfade.serving.fade.controller import FadeController
from crossfade.serving.fade.database import FadeDatabase
from crossfade.serving.frontends.fading import routes as fade_routes
from crossfade.serving.frontends.fading import rpcs as fade_rpcs
from crossfade.serving.frontends.open_inference import (
    extension_routes,
    extension_rpcs,
    routes,
    rpcs,
    stream,
)
from crossfade.serving.frontends.open_inference.describe import EXTENSIONS, Describe
from crossfade.serving.frontends.open_inference.settings import LogSettings, TraceSettings
from crossfade.serving.frontends.standard import health, reflection
from crossfade.serving.frontends.tensorflow_serving import routes as tensorflow_routes
from crossfade.serving.frontends.tensorflow_serving import rpcs as tensorflow_rpcs
from crossfade.serving.lifecycle.manager import Manager, Mode
from crossfade.serving.lifecycle.model_list import ModelList, ModelListSettings
from crossfade.serving.metrics.prometheus import CONTENT_TYPE, Exposition
from crossfade.serving.metrics.tensorflow import TensorflowMetrics
from crossfade.serving.repository.source import Source, open_source
from crossfade.serving.tensors.shared_regions import SharedRegions
from crossfade.serving.transport import openapi
from crossfade.serving.transport.calls import Access, HttpResponse, Route
from crossfade.serving.transport.grpc_host import GrpcHost
from crossfade.serving.transport.http_host import HttpHost
from crossfade.serving.transport.http_limits import HttpLimits
from crossfade.serving.transport.native_host import NativeHost
from crossfade.serving.transport.operation import Operation

_log = logging.getLogger(__name__)
_Host = GrpcHost | NativeHost | HttpHost
# mallopt(3): keep freed pages up to this size instead of asking the kernel for them again with
# every large message; models that are unloaded are trimmed explicitly.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEEP_BYTES = 32 * 1024 * 1024  # the most that M_MMAP_THRESHOLD takes


class Server:
    """One server. ``start`` listens at once and is ready when the models have been tried.

    Args:
        config: its settings.
        listed: the list of models that it serves, beside what is in its repositories.
    """

    def __init__(self, config: ServerConfig, listed: ModelListSettings | None = None) -> None:
        _tune_malloc()
        trust.allow(config.allow_python_models)
        sources: list[Source] = [
            open_source(place, config.cache, config.model_name)
            for place in config.model_repositories
        ]
        self._models = ModelList(listed, config.cache) if listed else None
        if self._models:
            sources.append(self._models.source)
        mode = Mode(config.model_control_mode)
        database = FadeDatabase(config.fade_database) if config.fade_database else None
        self._adaptations = adaptations.Adaptations(database.adapting) if database else None
        self._config = config
        self._manager = Manager(
            sources,
            mode,
            config.poll_s,
            config.load_models,
            config.load_threads,
            loading=dataclasses.replace(
                loading(config), adapt=self._adaptations.open if self._adaptations else None
            ),
            memory_bytes=config.memory_budget_bytes,
            evicts=config.memory_policy == "evict",
        )
        self._tracing = tracing(config)
        self._plane = DataPlane(self._manager, self._tracing)
        self._fades: FadeController | None = None
        if database:
            self._fades = FadeController(
                database, self._manager, self._plane.detour, self._adaptations
            )
        policy = guard(config)
        tls = certificates(config)
        context = tls.context() if tls else None
        regions = SharedRegions(
            config.shared_memory_prefixes if config.allow_shared_memory else (),
            config.shared_memory_bytes,
        )
        extensions = (*EXTENSIONS, "system_shared_memory") if regions.enabled else EXTENSIONS
        describe = Describe(self._plane, config.server_name, extensions)
        settings = (
            regions,
            TraceSettings(lambda name: describe.signature(ModelRef(name)), trace_rate(config)),
            LogSettings(),
        )
        counted = TensorflowMetrics()
        exposition = Exposition(
            self._manager.served,
            lambda: self._plane.ready,
            lambda: [*counted.collect(), *self._fade_metrics()],
            choose(config),
            self._counters,
            memory=self._manager.memory,
        )
        services = (
            *(rpcs.SERVICE, tensorflow_rpcs.PREDICTION, tensorflow_rpcs.MODEL),
            *(fade_rpcs.FADING, fade_rpcs.FEEDBACK),
        )
        self.grpc = grpc_host(
            config,
            [
                *rpcs.table(self._plane, describe, regions),
                *stream.table(self._plane, regions),
                *extension_rpcs.table(*settings),
                *tensorflow_rpcs.table(self._plane, counted, self._models),
                *fade_rpcs.table(self._fades),
                *health.table(self._plane, services),
                *reflection.table((*services, health.SERVICE)),
            ],
            policy,
            tls,
        )

        def http_host(
            host: str, port: int | None, table: list[Route], limits: HttpLimits, threads: int
        ) -> HttpHost | None:
            if port is None:
                return None
            return HttpHost(
                table, policy, limits, host=host, port=port, threads=threads, tls=context
            )

        http_routes = [
            *routes.table(self._plane, describe, regions),
            *extension_routes.table(*settings),
            *tensorflow_routes.table(self._plane, counted),
            *fade_routes.table(self._fades),
        ]
        if config.prometheus_path is not None:
            http_routes.append(_metrics(exposition, "/metrics", "metrics"))
            if config.prometheus_path != "/metrics":
                path = re.escape(config.prometheus_path)
                http_routes.append(_metrics(exposition, path, "monitoring"))
        if config.vertex:
            http_routes = on_vertex.beside(http_routes, self._plane, config.vertex)
        limits = HttpLimits(
            body_bytes=config.max_request_bytes, request_timeout_s=config.http_timeout_s
        )
        self.http = http_host(
            config.http_host or config.host,
            config.http_port,
            openapi.published(http_routes, __version__),
            limits,
            config.http_threads,
        )
        self.metrics = http_host(
            config.host,
            config.metrics_port,
            [_metrics(exposition, "/metrics/?", "metrics")],
            HttpLimits(body_bytes=1024),
            1,
        )
        self._stopping = threading.Lock()

    def start(self) -> None:
        """Listens, loads the models, and returns when the server is ready.

        Where fades are kept, models come first: a client of a fade that sees a server at all gets
        an answer, after a crash, too.

        Raises:
            Unavailable: a port cannot be bound, or the database of fades cannot be reached.
        """
        began_s = time.perf_counter()
        hosts = {"grpc": self.grpc, "http": self.http, "metrics": self.metrics}
        if self._fades is None:
            self._listen(hosts)
            self._manager.start()
        else:
            self._fades.prepare()
            self._manager.start()
            self._fades.start()
            self._listen(hosts)
        if self._models:
            self._models.follow(self._manager)
        seconds = round(time.perf_counter() - began_s, 3)
        models = len(self._manager.served())
        _log.info("ready", extra={**_ports(hosts), "models": models, "seconds": seconds})

    def _listen(self, hosts: Mapping[str, _Host | None]) -> None:
        for host in hosts.values():
            if host:
                host.start()
        addresses = {"host": self._config.host, "http_host": self._config.http_host}
        where = {name: address for name, address in addresses.items() if address}
        transport = choose(self._config)
        _log.info("listening", extra={**where, "transport": transport, **_ports(hosts)})

    def _fade_metrics(self) -> Iterable[Metric]:
        if self._fades:
            yield from fade_metrics.collect(self._fades.active())
        if self._adaptations:
            yield from adaptations.collect(self._adaptations.followed())

    def _counters(self) -> Mapping[str, int]:
        return self.grpc.counters()

    def stop(self) -> None:
        """Is not ready at once, answers what is in flight, then closes everything. Once."""
        if not self._stopping.acquire(blocking=False):
            return
        self._plane.drain()
        grace_s = self._config.shutdown_grace_s
        until_s = time.monotonic() + grace_s
        _log.info("draining", extra={"grace_s": grace_s})
        if self._models:
            self._models.close()
        hosts = [host for host in (self.grpc, self.http) if host]
        drains = [threading.Thread(target=host.stop, args=(grace_s,)) for host in hosts]
        for drain in drains:
            drain.start()
        for drain in drains:
            drain.join()
        if self.metrics:
            self.metrics.stop(0)
        if self._fades:
            self._fades.close()
        if self._tracing:
            self._tracing.close(max(0.0, until_s - time.monotonic()))
        self._manager.close()
        _log.info("stopped")


def _ports(hosts: Mapping[str, _Host | None]) -> dict[str, int | None]:
    return {f"{name}_port": host.port for name, host in hosts.items() if host}


def _metrics(exposition: Exposition, path: str, name: str) -> Route:
    def text(*_: object) -> HttpResponse:
        return HttpResponse(body=exposition.text(), content_type=CONTENT_TYPE)

    media = {"text/plain": {"type": "string"}}
    operation = Operation(name, "Metrics, as Prometheus reads them.", answer_media=media)
    return Route("GET", path, Access.READ, text, operation)


def _tune_malloc() -> None:
    """Has glibc's malloc keep large buffers; elsewhere nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
        mallopt(_M_ARENA_MAX, 1)
