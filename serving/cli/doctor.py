"""``crossfade doctor``: what this machine can serve with, and what to install for the rest."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Mapping
from typing import Any, Final

from crossfade import __version__
from crossfade.runtimes import registry
from crossfade.serving.app import transports

_NATIVE: Final = "crossfade-native"
# What each extra brings: modules, and the distributions that they may come from.
_MODULES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "onnx": {"onnxruntime": ("onnxruntime", "onnxruntime-gpu")},
    "tensorrt": {"tensorrt": ("tensorrt",), "cuda.bindings": ("cuda-bindings",)},
    "tflite": {"ai_edge_litert": ("ai-edge-litert",)},
    "tensorflow": {"tensorflow": ("tensorflow-cpu", "tensorflow")},
    "torch": {"torch": ("torch",)},
    "vertex": {"google.auth": ("google-auth",)},
    "fade": {"sqlalchemy": ("sqlalchemy",)},
    "fusion": {"onnx": ("onnx",), "onnx_ir": ("onnx-ir",)},
    "otel": {
        "opentelemetry.sdk": ("opentelemetry-sdk",),
        "opentelemetry.exporter.otlp.proto.http": ("opentelemetry-exporter-otlp-proto-http",),
    },
    "training": {
        "torch": ("torch",),
        "lightgbm": ("lightgbm",),
        "matplotlib": ("matplotlib",),
        "onnxscript": ("onnxscript",),
        "optuna": ("optuna",),
        "safetensors": ("safetensors",),
        "sklearn": ("scikit-learn",),
        "tensorboardX": ("tensorboardX",),
    },
}
_FEATURES: Final = ("fade", "fusion", "otel", "training")


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One thing that may be there.

    Attributes:
        kind: ``runtime``, ``transport`` or ``feature``.
        version: of what it needs; ``None`` if that is not installed.
        remedy: what to do about that.
    """

    kind: str
    name: str
    version: str | None
    remedy: str = ""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "doctor",
        help="what can this machine serve with, and what is missing?",
        description="Say what this machine can serve with, and what to install for the rest.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the report; returns the exit code."""
    cores = len(os.sched_getaffinity(0))
    machine = {
        "crossfade": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {cores} cores",
        "transport": transports.automatic(),
    }
    parts = [*_transports(), *_runtimes(), *(_part("feature", one, one) for one in _FEATURES)]
    if options.json:
        print(json.dumps({**machine, "parts": [dataclasses.asdict(part) for part in parts]}))
        return 0
    for name, value in machine.items():
        print(f"{name:12} {value}")
    width = max(len(part.name) for part in parts)
    for part in parts:
        state = part.version if part.version is not None else f"not installed: {part.remedy}"
        print(f"{part.kind:12} {part.name:{width}}  {state}")
    return 0


def _transports() -> list[Part]:
    build = f"build {_NATIVE} from the folder native/ of the sources"
    native = Part("transport", "native", None, build)
    if transports.automatic() == "native":
        import crossfade_native

        text = f"{_version(_NATIVE) or 'of unknown version'}, nghttp2"
        native = Part("transport", "native", f"{text} {crossfade_native.NGHTTP2_VERSION}")
    return [native, Part("transport", "grpcio", f"{_version('grpcio')}, serves TLS")]


def _runtimes() -> list[Part]:
    found = []
    for name, entry in registry.entries().items():
        if not entry.extra:
            found.append(Part("runtime", name, "needs nothing"))
            continue
        found.append(_part("runtime", name, entry.extra))
    return found


def _part(kind: str, name: str, extra: str) -> Part:
    """One thing that an extra brings; it is there if all of its modules are."""
    wanted = _MODULES.get(extra, {})
    missing = [module for module in wanted if not _is_there(module)]
    remedy = f"pip install 'crossfade[{extra}]'"
    if missing or not wanted:
        lacking = f" (no {', '.join(missing)})" if len(missing) < len(wanted) else ""
        return Part(kind, name, None, remedy + lacking)
    versions = []
    for module, distributions in wanted.items():
        version = next(filter(None, map(_version, distributions)), "of unknown version")
        versions.append(f"{module} {version}")
    return Part(kind, name, ", ".join(versions), remedy)


def _is_there(module: str) -> bool:
    """Whether a module can be found; it is not imported, which may take seconds."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a package that it is in is missing, or broken
        return False


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
