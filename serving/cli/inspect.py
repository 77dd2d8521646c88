"""``crossfade inspect``: what is this model or export, what does it need, can it be hosted?"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument
from crossfade.runtimes.core.model import Artifact, Signature
from crossfade.runtimes.isolated.probe import trial
from crossfade.serving.cli import inspect_ensemble
from crossfade.serving.cli.progress import bar
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.conversion import report as conversion_report
from crossfade.serving.exports.findings import look
from crossfade.serving.exports.kinds import Export, Findings, Kind
from crossfade.serving.exports.recognise import recognise
from crossfade.serving.exports.source import opened
from crossfade.serving.exports.unpack import SUFFIXES
from crossfade.serving.lifecycle.loader import find_artifact, interpreter
from crossfade.serving.repository import lineage
from crossfade.serving.repository.folders import read_folder

_EPILOG = """\
examples:
  crossfade inspect examples/digits/models/digits_automl
  crossfade inspect gs://bucket/model-123/tflite/2026-01-01T00:00:00Z
  crossfade inspect export.zip
  crossfade inspect model.tflite --json
"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "inspect",
        help="say what a model or an export is, and what it needs",
        description="Say what a model or an export is: kind, signatures, labels, size, needs,"
        " missing ops, and whether it can be hosted.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "place",
        metavar="EXPORT",
        help=f"a file, a folder, an archive ({', '.join(SUFFIXES)}) or a URL (gs://, s3://)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints what is found; returns the exit code: 1 if a version cannot be loaded."""
    with opened(options.place, progress=bar("copying")) as place:
        reports = inspect(place, name_of(options.place))
    if options.json:
        sys.stdout.write(json.dumps(reports, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(_text(report) for report in reports))
    return 1 if any(report["error"] for report in reports) else 0


def name_of(location: str) -> str:
    """The last part of a path or URL without the suffix of a file."""
    path = PurePosixPath(Path(location).resolve() if "://" not in location else location)
    return path.name.removesuffix("".join(path.suffixes[-2:])) or path.name


def inspect(place: Path, name: str) -> list[dict[str, Any]]:
    """Reports on each version at ``place``, a file or a folder, as plain values.

    Raises:
        NotFound: there is no model at ``place``.
        InvalidArgument: the configuration beside the model cannot be used, or there are several
            exports.
    """
    model = read_folder(name, place) if place.is_dir() else None
    if model is not None and model.error:
        raise InvalidArgument(model.error)
    if model is None or not model.versions:
        return [_report(recognise(place), name, 1, ModelConfig(), [])]
    if model.config.ensemble is not None:
        return [inspect_ensemble.report(model, number, place) for number in model.versions]
    beside = [text.splitlines() for text in model.label_files.values()]
    reports: list[dict[str, Any]] = []
    for number, version in model.versions.items():
        platform, artifact = find_artifact(model.config, place / version.folder)
        try:
            export = recognise(artifact)
        except CrossfadeError:  # a name that only the configuration knows
            export = Export(Kind.OTHER, artifact.parent, artifact, platform)
        reports.append(_report(export, name, number, model.config, beside))
    return reports


def _report(
    export: Export, name: str, number: int, config: ModelConfig, labels: Sequence[Sequence[str]]
) -> dict[str, Any]:
    found = look(export)
    files = [p for p in export.model.rglob("*") if p.is_file()] or [export.model]
    report: dict[str, Any] = {
        "name": name,
        "version": number,
        "kind": export.title,
        "kind_id": export.kind.value,
        "platform": export.platform,
        "file": export.model.name,
        "size_bytes": sum(p.stat().st_size for p in files),
        "needs": _needs(export, found),
        "labels": list(found.labels) or next((list(names) for names in labels), []),
        "labels_source": found.labels_source,
        "preprocessing": [dataclasses.asdict(fact) for fact in found.preprocessing],
        "signatures": found.signatures,
        "processing": _processing(config, {}),
        "nodes": {},
        "instance": [dataclasses.asdict(column) for column in found.instance],
        "prediction": list(found.prediction),
        "warmup_requests": len(found.warmup),
        "states": list(found.sequence["states"]) if found.sequence else [],
        "missing_ops": [dataclasses.asdict(op) for op in found.missing],
        "environment": dict(found.environment),
        "container": found.container,
        "notes": list(found.notes),
        "memory_bytes_at_most": None,
        "conversion": conversion_report.read(
            export.model.parent if export.model.is_file() else export.model
        ),
        "lineage": _lineage(export.model.parent if export.model.is_file() else export.model),
        "error": found.refusal or None,
    }
    if not found.missing and not found.refusal:
        _load(export, found, report, config)
    return report


def _lineage(folder: Path) -> dict[str, Any] | None:
    """The version's card, and whether it is true of the files that are there."""
    try:
        card = lineage.read_card(folder)
        if card is None:
            return None
        shown = {"card": card.model_dump(mode="json"), "lines": lineage.lines_of(card)}
        lineage.check(folder)
    except CrossfadeError as error:
        return {"card": None, "lines": [], "error": error.message}
    return {**shown, "error": None}


def _needs(export: Export, found: Findings) -> str:
    extra = registry.entries()[export.platform].extra if export.platform else ""
    needs = f"crossfade[{extra}]" if extra else "crossfade"
    packages = sorted({op.pin or op.package for op in found.missing} - {""})
    return f"{needs}, and {', '.join(packages)} in an environment of its own" if packages else needs


def _load(export: Export, found: Findings, report: dict[str, Any], config: ModelConfig) -> None:
    """Adds what only loading shows: the graph's own signatures, memory, what is wrong."""
    assert export.platform is not None
    artifact = Artifact(export.model, report["name"], report["version"], 1, config.options)
    try:
        runtime = registry.create(export.platform)
        report["memory_bytes_at_most"] = runtime.estimate(artifact)
        if registry.entries()[export.platform].native_parser or config.isolation is not None:
            # What a hostile file crashes is not this process.
            python = interpreter(config.isolation) if config.isolation is not None else None
            tried = trial(export.platform, artifact, python=python)
            signatures, nodes = tried.signatures, tried.facts.nodes
        else:
            session = runtime.load(artifact)
            signatures, nodes = session.signatures, getattr(session, "nodes", {})
            session.close()
    except CrossfadeError as error:
        report["error"] = error.message
        return
    report["signatures"] = {n: _signature(s) for n, s in signatures.items()}
    report["nodes"] = dict(nodes)
    report["processing"] = _processing(config, signatures)


def _processing(config: ModelConfig, signatures: Mapping[str, Signature]) -> str:
    """What a configuration has done around the model, in one line; empty for nothing."""
    parts = []
    if (pre := config.preprocess) is not None:
        from crossfade.serving.processing.images import find  # imports PIL

        name = pre.name
        for signature in signatures.values() if not name else ():
            with contextlib.suppress(CrossfadeError):  # it has no picture
                name = find(pre, signature.inputs).name
        where = f" as '{name}'" if name else ""
        how = f"{pre.resize.filter}, {pre.resize.fit}"
        values = ", normalised" if pre.normalizes else ""
        parts.append(f"image files{where} ({how}{values})")
    if config.task is not None:
        answers = "answers" if config.postprocess is not None else "the model's own outputs"
        parts.append(f"task {config.task} ({answers})")
    return " -> ".join(parts)


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
        "method": signature.method,
    }


def _text(report: Mapping[str, Any]) -> str:
    if report["platform"] == "ensemble":
        return inspect_ensemble.text(report)
    lines = [
        f"{report['name']} version {report['version']}: {report['kind']}",
        f"  file       {report['file']}, {report['size_bytes']:,} bytes",
    ]
    if report["platform"]:
        lines += [f"  platform   {report['platform']}", f"  needs      {report['needs']}"]
    if report["nodes"]:
        counts = ", ".join(f"{count} on {where}" for where, count in report["nodes"].items())
        lines.append(f"  nodes      {counts}")
    lines += [*_about_labels(report), *_about_signatures(report["signatures"])]
    if report["processing"]:
        lines.append(f"  processing {report['processing']}")
    for fact in report["preprocessing"]:
        value = "unknown" if fact["value"] is None else fact["value"]
        lines.append(f"  {fact['what']}: {value}  [{fact['source']}]")
    lines += [*_about_tables(report), *_about_ops(report)]
    if report["warmup_requests"]:
        lines.append(f"  warm-up    {report['warmup_requests']} recorded requests")
    for state in report["states"]:
        lines.append(
            f"  state      {state['output']} -> {state['input']}, first {state['initial']}"
        )
    lines += [f"  note       {note}" for note in report["notes"]]
    if report["lineage"]:
        said = report["lineage"]["lines"] or [f"NOT TRUE: {report['lineage']['error']}"]
        lines.append("  lineage    " + "\n             ".join(said))
    if report["conversion"]:
        lines.append(
            "  converted  " + conversion_report.text(report["conversion"]).replace("\n", "\n  ")
        )
    if report["error"]:
        lines.append(f"  cannot be loaded here: {report['error']}")
    return "\n".join(lines) + "\n"


def _about_labels(report: Mapping[str, Any]) -> list[str]:
    labels = report["labels"]
    if not labels:
        return []
    shown = ", ".join(labels[:10]) + (", …" if len(labels) > 10 else "")
    source = f"  [{report['labels_source']}]" if report["labels_source"] else ""
    return [f"  labels     {len(labels)}: {shown}{source}"]


def _about_signatures(signatures: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, signature in signatures.items():
        batch = {True: "batched", False: "one request a run", None: "as declared"}
        lines.append(f"  signature  {name} ({batch[signature.get('batched')]})")
        for side in ("inputs", "outputs"):
            for tensor, spec in signature[side].items():
                shape = "any shape" if spec["shape"] is None else str(spec["shape"])
                lines.append(f"    {side[:-1]:7}  {tensor}: {spec['dtype']} {shape}")
    return lines


def _about_tables(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for column in report["instance"]:
        nullable = ", may be null" if column["nullable"] else ""
        example = "" if column["example"] is None else f", such as {column['example']!r}"
        lines.append(f"  feature    {column['name']}: {column['type']}{nullable}{example}")
    if report["prediction"]:
        lines.append(f"  answers    {', '.join(report['prediction'])}")
    return lines


def _about_ops(report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"  missing op {op['op']}: {op['pin'] or op['package'] or 'of an unknown package'}"
        for op in report["missing_ops"]
    ]
    if report["environment"]:
        made = ", ".join(f"{name} {version}" for name, version in report["environment"].items())
        lines.append(f"  made with  {made}")
    if report["container"]:
        lines.append(f"  container  {report['container']}")
    return lines
