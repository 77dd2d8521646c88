"""``crossfade serve``: run the server until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.cli import vertex_options
from crossfade.serving.cli.numbers import port, positive, rate, seconds
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
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(ServerConfig)}


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
        default=_DEFAULTS["model_name"],
        metavar="NAME",
        help="what the model is called if the folder is one model's and no repository",
    )
    option(
        "--host",
        help=f"address to listen on ({_DEFAULTS['host']}); 0.0.0.0 is every interface",
    )
    for name in ("grpc", "http", "metrics"):
        option(
            f"--{name}-port",
            type=port,
            metavar="PORT",
            help=f"port for {name} ({_DEFAULTS[f'{name}_port']}); 0 is any free one",
        )
    option(
        "--model-control-mode",
        choices=("none", "poll", "explicit"),
        default=_DEFAULTS["model_control_mode"],
        help="none: load all at the start; poll: follow the repository; explicit: load on request",
    )
    _number(parser, "poll-s", "seconds between two looks at the repository, in mode poll")
    option(
        "--load-model",
        action="append",
        default=[],
        dest="load_models",
        metavar="NAME",
        help="load this model at the start in mode explicit; '*' is all; may be repeated",
    )
    option(
        "--max-request-bytes",
        type=positive,
        default=_DEFAULTS["max_request_bytes"],
        metavar="N",
        help="refuse larger requests (%(default)s)",
    )
    option(
        "--transport",
        choices=("auto", "native", "grpcio"),
        default=_DEFAULTS["transport"],
        help="which host serves gRPC (%(default)s: the native one where it is installed; with TLS"
        " it is grpcio)",
    )
    option(
        "--grpc-threads",
        type=positive,
        default=_DEFAULTS["grpc_threads"],
        metavar="N",
        help="gRPC requests that may run at the same time (%(default)s)",
    )
    option(
        "--http-threads",
        type=positive,
        default=_DEFAULTS["http_threads"],
        metavar="N",
        help="HTTP requests that may run at the same time (%(default)s)",
    )
    _number(parser, "shutdown-grace-s", "what requests in flight get after SIGTERM")
    _security(parser)
    vertex_options.add(parser)
    option(
        "--server-name",
        default=_DEFAULTS["server_name"],
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
        default=_DEFAULTS["shared_memory_bytes"],
        metavar="N",
        help="the most that all such regions may have together (%(default)s)",
    )
    option("--cache", type=Path, metavar="DIR", help="where versions behind a URL are copied to")
    option(
        "--log-format",
        choices=("text", "json"),
        default="text" if sys.stderr.isatty() else "json",
        help="text for people, json for collectors (text on a terminal, else json)",
    )
    option("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.set_defaults(run=lambda options: run(parser, options))


def _security(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument_group("who may call").add_argument
    option("--tls-cert", type=Path, metavar="PEM", help="the server's certificate: TLS, all ports")
    option("--tls-key", type=Path, metavar="PEM", help="its private key")
    option(
        "--tls-client-ca",
        type=Path,
        metavar="PEM",
        help="callers must show a certificate of this authority (mutual TLS)",
    )
    option(
        "--tokens",
        type=Path,
        metavar="YAML",
        help="callers must send a token of this file; `crossfade token` adds one",
    )
    option(
        "--admin-from",
        choices=("loopback", "anywhere"),
        default=_DEFAULTS["admin_from"],
        help="from where models may be loaded and unloaded (%(default)s); anywhere needs --tokens"
        " or --tls-client-ca",
    )
    option(
        "--caller-rate",
        type=rate,
        metavar="N",
        help="requests a second for each caller, by token, else by address (no limit)",
    )


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Serves until a signal, then ends the process with 0; raises what the start raised."""
    from crossfade.serving.app import logs
    from crossfade.serving.app.server import Server

    logs.set_up(options.log_format, options.log_level)
    given = {name: getattr(options, name, None) for name in _DEFAULTS}
    settings: dict[str, Any] = {
        name: _DEFAULTS[name] if value is None else value for name, value in given.items()
    }
    settings["model_repositories"] = tuple(options.model_repositories)
    vertex_options.apply(options, settings)
    if not settings["model_repositories"]:
        parser.error("--model-repository is needed: where are the models?")
    settings["load_models"] = tuple(options.load_models)
    settings["shared_memory_prefixes"] = (
        tuple(options.shared_memory_prefixes) or _DEFAULTS["shared_memory_prefixes"]
    )
    if options.shared_memory_prefixes and not options.allow_shared_memory:
        raise InvalidArgument("--shared-memory-prefix needs --allow-shared-memory")
    if not all(prefix.startswith("/") for prefix in options.shared_memory_prefixes):
        raise InvalidArgument("--shared-memory-prefix must begin with '/'")
    if options.load_models and options.model_control_mode != "explicit":
        raise InvalidArgument("--load-model needs --model-control-mode explicit")
    # The kernel gives a signal to any thread, and Python's handler runs when the main thread next
    # does: which, blocked, it may never. The wake-up pipe is written at once.
    asked, ask = os.pipe()
    os.set_blocking(ask, False)
    signal.set_wakeup_fd(ask, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server = Server(ServerConfig(**settings))
    failures: list[BaseException] = []

    def start() -> None:  # beside the main thread, so that a signal is heard while models load
        try:
            server.start()
        except BaseException as error:
            failures.append(error)
            os.write(ask, b"!")

    threading.Thread(target=start, name="start", daemon=True).start()
    os.read(asked, 1)
    threading.Thread(target=_end_when_asked_again, args=(asked,), daemon=True).start()
    server.stop()
    if failures:
        raise failures[0]
    logging.shutdown()
    # Everything is closed. The interpreter would now join the threads of its pools, and one that
    # is stuck in a model or a library cannot be interrupted.
    os._exit(0)


def _end_when_asked_again(asked: int) -> None:
    os.read(asked, 1)
    os._exit(1)


def _number(parser: argparse.ArgumentParser, name: str, help_text: str) -> None:
    default = _DEFAULTS[name.replace("-", "_")]
    parser.add_argument(
        f"--{name}", type=seconds, default=default, metavar="S", help=f"{help_text} (%(default)s)"
    )
