"""What a server is told at its start."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from crossfade.serving.config.vertex_config import VertexConfig


@dataclasses.dataclass(frozen=True, slots=True)
class ServerConfig:
    """Settings of one server; the command line's options have the same names.

    Attributes:
        model_repositories: folders or URLs; of two models with one name the first one's is served.
        model_name: a repository may then also be the folder of one model, which has this name.
        host: the address to listen on.
        http_host: the address for HTTP, where it is another one.
        grpc_port, http_port, metrics_port: 0 is any free port; ``None`` is none.
        grpc_socket: the path of a Unix socket that gRPC listens on, too.
        grpc_options: channel arguments of gRPC's library.
        model_control_mode: ``none``, ``poll`` or ``explicit``.
        poll_s: seconds between two looks at the repository, in mode ``poll``.
        load_models: what to load at the start in mode ``explicit``; ``*`` is all.
        load_threads: models that are loaded at the same time.
        transport: which host serves gRPC: ``native``, ``grpcio``, or ``auto``: the native one
            where it is installed, without TLS and ``grpc_options``.
        grpc_threads, http_threads: requests that may run at the same time, by protocol.
        http_timeout_s: an HTTP request that takes longer is told 504; ``None`` is no limit.
        prometheus_path: where the metrics are on the HTTP port; ``None`` is nowhere.
        max_request_bytes: a larger request is refused.
        shutdown_grace_s: what requests in flight get after SIGTERM.
        tls_cert, tls_key, tls_client_ca: PEM files; TLS on every port, and callers must then show
            a certificate of that authority.
        tokens: the file of the callers' tokens; ``None`` lets everybody infer and read.
        admin_from: ``loopback``, or ``anywhere`` for callers who have proved who they are.
        caller_rate: requests a second for each caller; ``None`` is no limit.
        server_name: what ``ServerMetadata`` says.
        allow_shared_memory: whether clients may register system shared memory.
        shared_memory_prefixes: how the keys of such regions must begin.
        shared_memory_bytes: for all such regions together.
        cache: where remote versions are copied to, and what was tried is remembered; ``None`` is
            the user's cache folder.
        probe: ``auto`` tries files that were never loaded here in another process first;
            ``never`` trusts them.
        environments_dir: environments of isolated models; ``None`` is the user's data folder.
        memory_budget_bytes: what all models may take together, by estimate; ``None`` is no limit.
        memory_policy: what happens to a model that does not fit: ``refuse`` it, or ``evict``
            others that nobody uses.
        allow_python_models: folders whose code may be run as models; none is.
        fade_database: the URL of the database that fades are kept in; ``None`` keeps none.
        otlp_endpoint: the URL of the collector that traces are sent to; ``None`` makes none.
        trace_sample_percent: of the requests whose caller does not trace them; ``None`` is what
            OpenTelemetry's environment variables say, else all.
        vertex: answers Vertex AI, too, on the HTTP port; ``None`` does not.
    """

    model_repositories: tuple[str, ...]
    model_name: str = ""
    host: str = "127.0.0.1"
    http_host: str = ""
    grpc_port: int | None = 8001
    http_port: int | None = 8000
    metrics_port: int | None = 8002
    grpc_socket: Path | None = None
    grpc_options: tuple[tuple[str, int | str], ...] = ()
    model_control_mode: str = "none"
    poll_s: float = 5.0
    load_models: tuple[str, ...] = ()
    load_threads: int = 2
    transport: str = "auto"
    grpc_threads: int = 64
    http_threads: int = 16
    http_timeout_s: float | None = None
    prometheus_path: str | None = "/monitoring/prometheus/metrics"
    max_request_bytes: int = 64 * 1024 * 1024
    shutdown_grace_s: float = 30.0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tokens: Path | None = None
    admin_from: str = "loopback"
    caller_rate: float | None = None
    server_name: str = "crossfade"
    allow_shared_memory: bool = False
    shared_memory_prefixes: tuple[str, ...] = ("/cf_client_",)
    shared_memory_bytes: int = 1024 * 1024 * 1024
    cache: Path | None = None
    allow_python_models: tuple[Path, ...] = ()
    probe: str = "auto"
    environments_dir: Path | None = None
    memory_budget_bytes: int | None = None
    memory_policy: str = "refuse"
    fade_database: str | None = None
    otlp_endpoint: str | None = None
    trace_sample_percent: float | None = None
    vertex: VertexConfig | None = None
