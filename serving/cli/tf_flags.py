"""TensorFlow Serving's flags: what each does here."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any, Final, NoReturn


@dataclasses.dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    Attributes:
        default: TensorFlow Serving's; its type is the flag's.
        no_effect: why it is accepted and does nothing; said where the value is another one.
        refused: why a server with another value does not start.
    """

    name: str
    default: bool | int | float | str
    no_effect: str = ""
    refused: str = ""


_TFLITE = "LiteRT has as many interpreters as a model has instances"
_RETRY = "a version that failed to load is tried again when its files change"
_WARMUP = "each version is warmed up with zeros; recorded requests are not replayed"
FLAGS: Final = (
    Flag("port", 8500),
    Flag("grpc_socket_path", ""),
    Flag("rest_api_port", 0),
    Flag("rest_api_num_threads", 0),
    Flag("rest_api_timeout_in_ms", 30_000),
    Flag("model_config_file", ""),
    Flag("model_config_file_poll_wait_seconds", 0),
    Flag("model_name", "default"),
    Flag("model_base_path", ""),
    Flag("enable_batching", False),
    Flag("batching_parameters_file", ""),
    Flag("allow_version_labels_for_unavailable_models", False),
    Flag("file_system_poll_wait_seconds", 1),
    Flag("num_load_threads", 0),
    Flag("prefer_tflite_model", False),
    Flag("monitoring_config_file", ""),
    Flag("ssl_config_file", ""),
    Flag("saved_model_tags", "serve"),
    Flag("tensorflow_session_parallelism", 0),
    Flag("tensorflow_intra_op_parallelism", 0),
    Flag("tensorflow_inter_op_parallelism", 0),
    Flag("grpc_channel_arguments", ""),
    Flag("grpc_max_threads", 0),
    Flag("enable_grpc_healthcheck_service", True, no_effect="grpc.health.v1 is always answered"),
    Flag("enable_model_warmup", True, no_effect=_WARMUP),
    Flag("num_request_iterations_for_warmup", 0, no_effect=_WARMUP),
    Flag("max_num_load_retries", 5, no_effect=_RETRY),
    Flag("load_retry_interval_micros", 60_000_000, no_effect=_RETRY),
    Flag("num_unload_threads", 0, no_effect="each version is closed on a thread of its own"),
    Flag("flush_filesystem_caches", True, no_effect="the kernel's caches are left alone"),
    Flag("rest_api_enable_cors_support", False, no_effect="CORS headers are never sent"),
    Flag(
        "enable_per_model_batching_parameters",
        False,
        no_effect="a model.yaml in the model's folder is where a model has numbers of its own",
    ),
    Flag("per_process_gpu_memory_fraction", 0.0, no_effect="TensorFlow decides"),
    Flag("tensorflow_session_config_file", "", no_effect="sessions have the default options"),
    Flag("thread_pool_factory_config_file", "", no_effect="TensorFlow has its own pools"),
    Flag("remove_unused_fields_from_bundle_metagraph", True, no_effect="TensorFlow decides"),
    Flag("num_tflite_pools", 0, no_effect=_TFLITE),
    Flag("num_tflite_interpreters_per_pool", 1, no_effect=_TFLITE),
    Flag(
        "enable_signature_method_name_check",
        False,
        no_effect="a signature declared for another method is always refused",
    ),
    Flag("enable_serialization_as_tensor_content", False, no_effect="answers are typed values"),
    Flag("xla_cpu_compilation_enabled", False, no_effect="TensorFlow decides"),
    Flag("enable_profiler", True, no_effect="there is no profiler service"),
    Flag("mixed_precision", "", no_effect="models run as they were exported"),
    Flag("platform_config_file", "", refused="platforms are built in"),
    Flag("use_alts_credentials", False, refused="give --ssl_config_file for TLS"),
    Flag(
        "force_allow_any_version_labels_for_unavailable_models",
        False,
        refused="a label in use stays on a version that answers",
    ),
)


class Parser(argparse.ArgumentParser):
    """Takes ``--flag=value`` and ``--flag value``; an unknown flag names the nearest right one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        group = self.add_argument_group("TensorFlow Serving's flags")
        for flag in FLAGS:
            kind = type(flag.default)
            text = flag.no_effect or flag.refused
            does = "no effect: " if flag.no_effect else "refused: " if flag.refused else ""
            group.add_argument(
                f"--{flag.name}",
                default=flag.default,
                metavar=kind.__name__.upper(),
                help=(does + text) or f"as there ({flag.default!r})",
                **(
                    {"type": _truth, "nargs": "?", "const": True}
                    if kind is bool
                    else {"type": kind}
                ),
            )

    def parse_all(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parses the whole command line; ends the process where it is wrong."""
        options, rest = self.parse_known_args(arguments)
        if rest:
            self.unknown(rest[0])
        for flag in FLAGS:
            if flag.refused and getattr(options, flag.name) != flag.default:
                self.error(f"--{flag.name} is not supported: {flag.refused}")
        return options

    def unknown(self, argument: str) -> NoReturn:
        """Ends the process for an argument that means nothing."""
        name = argument.partition("=")[0]
        known = [text for action in self._actions for text in action.option_strings]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        self.error(f"unknown argument {argument}{hint}")


def without_effect(options: argparse.Namespace) -> list[str]:
    """What to say of flags that were given and do nothing."""
    return [
        f"--{flag.name} has no effect: {flag.no_effect}"
        for flag in FLAGS
        if flag.no_effect and getattr(options, flag.name) != flag.default
    ]


def _truth(text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    try:
        return values[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false") from None
