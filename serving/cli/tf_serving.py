"""``crossfade-tf-serving``: started as TensorFlow Serving's ``tensorflow_model_server`` is."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from crossfade import __version__
from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument
from crossfade.serving.cli import tf_batching, tf_flags
from crossfade.serving.cli.options import DEFAULTS, limits, loading, output, security
from crossfade.serving.config.server_config import ServerConfig
from crossfade.serving.lifecycle.model_list import ModelListSettings
from crossfade.serving.repository import tf_model_list
from crossfade.serving.repository.layout import ModelFiles
from crossfade.serving.repository.places import Settings
from crossfade.serving.wire import tf_model_server, tf_server_files

_log = logging.getLogger(__name__)
_PROGRAM: Final = "crossfade-tf-serving"
_OPTIONS: Final = (
    *("host", "max_request_bytes", "shutdown_grace_s", "cache", "tokens", "admin_from"),
    *("caller_rate", "tls_cert", "tls_key", "tls_client_ca"),
    *("probe", "environments_dir", "memory_budget_bytes", "memory_policy"),
)
_EPILOG: Final = """\
examples:
  crossfade-tf-serving --rest_api_port=8501 --model_name=half --model_base_path=/models/half
  crossfade-tf-serving --model_config_file=/models/models.config --rest_api_port 8501

To start it from a script that names TensorFlow Serving's program:
  ln -s "$(command -v crossfade-tf-serving)" /usr/local/bin/tensorflow_model_server
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server; returns the exit code."""
    parser = tf_flags.Parser(
        prog=_PROGRAM,
        usage="%(prog)s --model_base_path=DIR | --model_config_file=FILE [flag ...]",
        description="Serve the models of a TensorFlow Serving command line.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"crossfade {__version__}")
    parser.add_argument(
        "--host",
        default="0.0.0.0",
        help="address to listen on (%(default)s, every interface, as TensorFlow Serving does)",
    )
    limits(parser)
    loading(parser)
    security(parser)
    output(parser)
    options = parser.parse_all(arguments)
    from crossfade.serving.app import logs
    from crossfade.serving.cli.running import run_until_signal

    logs.set_up(options.log_format, options.log_level)
    try:
        for line in tf_flags.without_effect(options):
            _log.warning(line)
        return run_until_signal(server_config(options), list_settings(options))
    except CrossfadeError as error:
        sys.stderr.write(f"{_PROGRAM}: {error.message}\n")
        return 1


def server_config(options: argparse.Namespace) -> ServerConfig:
    """The server's settings.

    Raises:
        InvalidArgument: a value is not possible, or a file is wrong.
    """
    settings: dict[str, Any] = {name: getattr(options, name) for name in _OPTIONS}
    if options.ssl_config_file:
        settings |= _tls(Path(options.ssl_config_file))
    if not (options.port or options.grpc_socket_path):
        raise InvalidArgument("there is neither --port nor --grpc_socket_path to listen on")
    if options.port and options.port == options.rest_api_port:
        raise InvalidArgument("--rest_api_port cannot be same as --port")
    timeout_ms = _at_least(options, "rest_api_timeout_in_ms", 1)
    poll_s = _at_least(options, "file_system_poll_wait_seconds", 0)
    return ServerConfig(
        model_repositories=(),
        grpc_port=_port(options, "port"),
        http_port=_port(options, "rest_api_port"),
        metrics_port=None,
        grpc_socket=Path(options.grpc_socket_path) if options.grpc_socket_path else None,
        grpc_options=_channel_arguments(options.grpc_channel_arguments),
        model_control_mode="poll" if poll_s else "none",
        poll_s=poll_s,
        load_threads=_at_least(options, "num_load_threads", 0) or DEFAULTS["load_threads"],
        grpc_threads=_at_least(options, "grpc_max_threads", 0) or DEFAULTS["grpc_threads"],
        http_threads=_at_least(options, "rest_api_num_threads", 0) or DEFAULTS["http_threads"],
        http_timeout_s=timeout_ms / 1000,
        prometheus_path=_prometheus_path(options.monitoring_config_file),
        **settings,
    )


def list_settings(options: argparse.Namespace) -> ModelListSettings:
    """The list of models.

    Raises:
        InvalidArgument: there is none, or a file is wrong.
    """
    file = Path(options.model_config_file) if options.model_config_file else None
    if file:
        listed = tf_model_list.read_text(file, tf_model_server.ModelServerConfig())
    elif options.model_base_path:
        listed = tf_model_list.one_model(options.model_name, options.model_base_path)
    else:
        raise InvalidArgument("give --model_config_file, or --model_name and --model_base_path")
    return ModelListSettings(
        listed,
        _defaults(options),
        file,
        _at_least(options, "model_config_file_poll_wait_seconds", 0),
        options.allow_version_labels_for_unavailable_models,
    )


def _defaults(options: argparse.Namespace) -> Callable[[ModelFiles], Settings]:
    """What the flags say of every model, where its folder does not say otherwise."""
    batching: dict[str, Any] = {"batching": {"max_size": 1}}
    if options.batching_parameters_file:
        if not options.enable_batching:
            raise InvalidArgument("--batching_parameters_file is set without --enable_batching")
        file = Path(options.batching_parameters_file)
        parameters = tf_model_list.read_text(file, tf_server_files.BatchingParameters())
        batching = tf_batching.settings(parameters)
    elif options.enable_batching:
        batching = {"batching": {"auto": True}}
    session = _at_least(options, "tensorflow_session_parallelism", 0)
    sizes = {
        "intra_op_threads": _at_least(options, "tensorflow_intra_op_parallelism", 0) or session,
        "inter_op_threads": _at_least(options, "tensorflow_inter_op_parallelism", 0) or session,
    }
    saved_model: dict[str, Any] = {name: size for name, size in sizes.items() if size}
    if options.saved_model_tags:
        saved_model["tags"] = options.saved_model_tags.split(",")

    def defaults(files: ModelFiles) -> Settings:
        found = [version.files.keys() for version in files.versions.values()]
        if options.prefer_tflite_model and all("model.tflite" in names for names in found):
            return {**batching, "platform": "tflite"}
        if found and all({"saved_model.pb", "saved_model.pbtxt"} & names for names in found):
            return {**batching, "options": saved_model}
        return batching

    return defaults


def _prometheus_path(file: str) -> str | None:
    """Where the metrics are; they are there, too, where no file asks for them."""
    default: str = DEFAULTS["prometheus_path"]
    if not file:
        return default
    found = tf_model_list.read_text(Path(file), tf_server_files.MonitoringConfig())
    if not found.prometheus_config.enable:
        return None
    path: str = found.prometheus_config.path or default
    if not path.startswith("/"):
        raise InvalidArgument(f"the path of prometheus_config must begin with '/': '{path}'")
    return path


def _tls(file: Path) -> dict[str, Path]:
    found = tf_model_list.read_text(file, tf_server_files.SSLConfig())
    if not (found.server_key and found.server_cert):
        raise InvalidArgument(f"'{file}' needs both server_key and server_cert")
    if found.client_verify and not found.custom_ca:
        raise InvalidArgument(f"'{file}': client_verify needs custom_ca")
    _log.warning("--ssl_config_file: the REST API speaks TLS, too")
    texts = {"tls_cert": found.server_cert, "tls_key": found.server_key}
    if found.client_verify:
        texts["tls_client_ca"] = found.custom_ca
    return {name: _in_memory(name, text) for name, text in texts.items()}


def _in_memory(name: str, text: str) -> Path:
    """A file that lies in memory only, for as long as the process lives: a key is in one."""
    descriptor = os.memfd_create(name)
    with os.fdopen(os.dup(descriptor), "w") as file:
        file.write(text)
    return Path(f"/proc/self/fd/{descriptor}")


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    found: list[tuple[str, int | str]] = []
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not (name and equals):
            raise InvalidArgument(
                f"--grpc_channel_arguments: '{part}' is not of the form key=value"
            )
        is_number = value.removeprefix("-").isdecimal()
        found.append((name, int(value) if is_number else value))
    return tuple(found)


def _port(options: argparse.Namespace, name: str) -> int | None:
    value = _at_least(options, name, 0)
    if value > 65535:
        raise InvalidArgument(f"--{name}: {value} is not a port")
    return value or None


def _at_least(options: argparse.Namespace, name: str, least: int) -> int:
    value: int = getattr(options, name)
    if value < least:
        raise InvalidArgument(f"--{name} is {value}; it must be {least} or more")
    return value
