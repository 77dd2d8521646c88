"""``crossfade inspect``: what is this model, and what does it need?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument, NotFound
from crossfade.runtimes.core.model import Artifact, Signature
from crossfade.serving.conversion import report as conversion_report
from crossfade.serving.lifecycle.loader import find_artifact
from crossfade.serving.repository.folders import read_folder
from crossfade.serving.repository.layout import LABEL_FILES, ModelFiles

_EPILOG = """\
examples:
  crossfade inspect examples/digits/models/digits_automl
  crossfade inspect model.tflite --json
"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "inspect",
        help="say what a model or an export is, and what it needs",
        description="Say what a model or an export is: kind, signatures, labels, size, needs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, help="a model file, a version's folder or a model's")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints what is found; returns the exit code: 1 if a version cannot be loaded."""
    reports = inspect(options.path)
    if options.json:
        sys.stdout.write(json.dumps(reports, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(_text(report) for report in reports))
    return 1 if any(report["error"] for report in reports) else 0


def inspect(path: Path) -> list[dict[str, Any]]:
    """Reports on each version at ``path``, a file or a folder, as plain values.

    Raises:
        NotFound: there is nothing at ``path``, or no model.
        InvalidArgument: the configuration beside the model cannot be used.
    """
    if not path.exists():
        raise NotFound(f"there is nothing at '{path}'")
    folder = path.parent if path.is_file() else path
    model = read_folder(folder.resolve().name, folder)
    if model.error:
        raise InvalidArgument(model.error)
    if path.is_file():
        found = next((n for n, e in registry.entries().items() if e.opens(path.name)), None)
        if found is None:
            raise NotFound(f"'{path.name}' is no kind of model that this server opens")
        return [_report(model, 1, found, folder if path.name.startswith("saved_model.") else path)]
    if not model.versions:
        raise NotFound(f"'{path}' holds no model: no version folders, and no file that is one")
    reports: list[dict[str, Any]] = []
    for number, version in model.versions.items():
        platform, artifact = find_artifact(model.config, folder / version.folder)
        reports.append(_report(model, number, platform, artifact))
    return reports


def _report(model: ModelFiles, number: int, platform: str, path: Path) -> dict[str, Any]:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    beside = path.parent if path.is_file() else path
    labels = _labels(model, beside)
    extra = registry.entries()[platform].extra
    report: dict[str, Any] = {
        "name": model.name,
        "version": number,
        "kind": _kind(platform, beside),
        "platform": platform,
        "file": path.name,
        "size_bytes": sum(p.stat().st_size for p in files),
        "needs": f"crossfade[{extra}]" if extra else "crossfade",
        "labels": labels,
        "signatures": {},
        "memory_bytes_at_most": None,
        "conversion": conversion_report.read(beside),
        "error": None,
    }
    artifact = Artifact(path, model.name, number, 1, model.config.options)
    try:
        runtime = registry.create(platform)
        report["memory_bytes_at_most"] = runtime.estimate(artifact)
        session = runtime.load(artifact)
    except CrossfadeError as error:
        report["error"] = error.message
        return report
    report["signatures"] = {n: _signature(s) for n, s in session.signatures.items()}
    session.close()
    return report


def _kind(platform: str, folder: Path) -> str:
    names = {p.name for p in folder.iterdir()}
    if platform == "tflite" and "dict.txt" in names:
        source = "Vertex AI" if "tflite_metadata.json" in names else "AutoML or Firebase"
        return f"AutoML Vision Edge export, TFLite ({source})"
    return {
        "tflite": "TFLite model",
        "tensorflow_savedmodel": "TensorFlow SavedModel",
        "onnxruntime_onnx": "ONNX model",
    }.get(platform, f"{platform} model")


def _labels(model: ModelFiles, folder: Path) -> list[str]:
    texts = [p.read_text("utf-8", "replace") for n in LABEL_FILES if (p := folder / n).is_file()]
    return next((t.splitlines() for t in [*texts, *model.label_files.values()]), [])


def _signature(signature: Signature) -> dict[str, Any]:
    def tensors(specs: Any) -> dict[str, Any]:
        return {
            s.name: {"dtype": s.dtype, "shape": None if s.shape is None else list(s.shape)}
            for s in specs
        }

    return {
        "inputs": tensors(signature.inputs),
        "outputs": tensors(signature.outputs),
        "batched": signature.batched,
    }


def _text(report: Mapping[str, Any]) -> str:
    labels = report["labels"]
    shown = ", ".join(labels[:10]) + (", …" if len(labels) > 10 else "")
    lines = [
        f"{report['name']} version {report['version']}: {report['kind']}",
        f"  file       {report['file']}, {report['size_bytes']:,} bytes",
        f"  platform   {report['platform']}",
        f"  needs      {report['needs']}",
    ]
    if labels:
        lines.append(f"  labels     {len(labels)}: {shown}")
    for name, signature in report["signatures"].items():
        batch = "batched" if signature["batched"] else "one request a run"
        lines.append(f"  signature  {name} ({batch})")
        for side in ("inputs", "outputs"):
            for tensor, spec in signature[side].items():
                shape = "any shape" if spec["shape"] is None else str(spec["shape"])
                lines.append(f"    {side[:-1]:7}  {tensor}: {spec['dtype']} {shape}")
    if report["conversion"]:
        lines.append(
            "  converted  " + conversion_report.text(report["conversion"]).replace("\n", "\n  ")
        )
    if report["error"]:
        lines.append(f"  cannot be loaded here: {report['error']}")
    return "\n".join(lines) + "\n"
