"""``crossfade serve``: run the server until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.cli import vertex_options
from crossfade.serving.cli.numbers import percent, port, positive, positive_seconds
from crossfade.serving.cli.options import DEFAULTS, limits, loading, number, output, security
from crossfade.serving.config.server_config import ServerConfig

_EPILOG = """\
examples:
  crossfade serve --model-repository models/
  crossfade serve --model-repository gs://bucket/models --model-control-mode poll
  crossfade serve --model-repository models/ --host 0.0.0.0 --log-format json
  crossfade serve --model-name flowers --model-dir /mnt/models --http-port 8080

A model repository is a folder with one folder a model. Each of these is served as it is:
  flowers/model.tflite  flowers/dict.txt        an unpacked AutoML export
  half/00000123/saved_model.pb                  TensorFlow Serving's layout
  simple/config.pbtxt   simple/1/model.onnx     Triton's layout
  mine/model.yaml       mine/3/model.onnx       our own; model.yaml may be left out

With --model-name the folder may also be that of one model. Options may be written with underscores.

on Vertex AI (AIP_MODE=PREDICTION): the repository is AIP_STORAGE_URI, HTTP listens on 0.0.0.0 and
AIP_HTTP_PORT, health and predict have their routes there. Options win over the environment.

signals: SIGTERM or Ctrl-C makes the server not ready at once, lets requests in flight finish for
--shutdown-grace-s seconds, and ends with exit code 0. A second signal ends it at once.
"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "serve",
        help="serve a model repository over gRPC and HTTP",
        description="Serve a model repository over gRPC and HTTP.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option(
        "--model-repository",
        "--model-dir",
        action="append",
        default=[],
        dest="model_repositories",
        metavar="DIR-or-URL",
        help="where the models are; may be given more than once, the first one wins",
    )
    option(
        "--model-name",
        default=DEFAULTS["model_name"],
        metavar="NAME",
        help="what the model is called if the folder is one model's and no repository",
    )
    option(
        "--host",
        help=f"address to listen on ({DEFAULTS['host']}); 0.0.0.0 is every interface",
    )
    for name in ("grpc", "http", "metrics"):
        option(
            f"--{name}-port",
            type=port,
            metavar="PORT",
            help=f"port for {name} ({DEFAULTS[f'{name}_port']}); 0 is any free one",
        )
    option(
        "--grpc-socket",
        type=Path,
        metavar="PATH",
        help="a Unix socket that gRPC listens on, too; only this user can reach it",
    )
    option(
        "--model-control-mode",
        choices=("none", "poll", "explicit"),
        default=DEFAULTS["model_control_mode"],
        help="none: load all at the start; poll: follow the repository; explicit: load on request",
    )
    number(parser, "poll-s", "seconds between two looks at the repository, in mode poll")
    option(
        "--load-model",
        action="append",
        default=[],
        dest="load_models",
        metavar="NAME",
        help="load this model at the start in mode explicit; '*' is all; may be repeated",
    )
    option(
        "--transport",
        choices=("auto", "native", "grpcio"),
        default=DEFAULTS["transport"],
        help="which host serves gRPC (%(default)s: the native one where it is installed; with TLS"
        " it is grpcio)",
    )
    option(
        "--grpc-threads",
        type=positive,
        default=DEFAULTS["grpc_threads"],
        metavar="N",
        help="gRPC requests that may run at the same time (%(default)s)",
    )
    option(
        "--http-threads",
        type=positive,
        default=DEFAULTS["http_threads"],
        metavar="N",
        help="HTTP requests that may run at the same time (%(default)s)",
    )
    option(
        "--http-timeout-s",
        type=positive_seconds,
        metavar="S",
        help="tell HTTP requests that take longer 504 (no limit)",
    )
    limits(parser)
    loading(parser)
    security(parser)
    vertex_options.add(parser)
    option(
        "--server-name",
        default=DEFAULTS["server_name"],
        metavar="NAME",
        help="what ServerMetadata says (%(default)s)",
    )
    option(
        "--triton-compat",
        action="store_const",
        const="triton",
        dest="server_name",
        help="say 'triton', as clients that were written for it insist on",
    )
    option(
        "--allow-shared-memory",
        action="store_true",
        help="let clients on this machine pass tensors in system shared memory; trust them first",
    )
    option(
        "--shared-memory-prefix",
        action="append",
        default=[],
        dest="shared_memory_prefixes",
        metavar="PREFIX",
        help="how the keys of such regions must begin (/cf_client_); may be repeated",
    )
    option(
        "--shared-memory-bytes",
        type=positive,
        default=DEFAULTS["shared_memory_bytes"],
        metavar="N",
        help="the most that all such regions may have together (%(default)s)",
    )
    option(
        "--allow-python-models",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="run model.py files in this folder as models, with all that this server may do;"
        " may be repeated",
    )
    option(
        "--fade-database",
        metavar="URL",
        help="keep fades and feedback in sqlite:///fades.db (a local disk) or postgresql://…,"
        " which several servers may share (no fades)",
    )
    option(
        "--otlp-endpoint",
        metavar="URL",
        help="send OpenTelemetry traces to the collector at http://HOST:4318 (no traces)",
    )
    option(
        "--trace-sample-percent",
        type=percent,
        metavar="P",
        help="trace so many of the requests whose caller does not trace them (all)",
    )
    output(parser)
    parser.set_defaults(run=lambda options: run(parser, options))


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Serves until a signal, then ends the process with 0; raises what the start raised."""
    from crossfade.serving.app import logs
    from crossfade.serving.cli.running import run_until_signal

    logs.set_up(options.log_format, options.log_level)
    given = {name: getattr(options, name, None) for name in DEFAULTS}
    settings: dict[str, Any] = {
        name: DEFAULTS[name] if value is None else value for name, value in given.items()
    }
    settings["model_repositories"] = tuple(options.model_repositories)
    vertex_options.apply(options, settings)
    if not settings["model_repositories"]:
        parser.error("--model-repository is needed: where are the models?")
    settings["allow_python_models"] = tuple(options.allow_python_models)
    settings["load_models"] = tuple(options.load_models)
    settings["shared_memory_prefixes"] = (
        tuple(options.shared_memory_prefixes) or DEFAULTS["shared_memory_prefixes"]
    )
    if options.shared_memory_prefixes and not options.allow_shared_memory:
        raise InvalidArgument("--shared-memory-prefix needs --allow-shared-memory")
    if not all(prefix.startswith("/") for prefix in options.shared_memory_prefixes):
        raise InvalidArgument("--shared-memory-prefix must begin with '/'")
    if options.load_models and options.model_control_mode != "explicit":
        raise InvalidArgument("--load-model needs --model-control-mode explicit")
    return run_until_signal(ServerConfig(**settings))
