"""One conversion from beginning to end: convert, prove, keep or reject."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossfade.runtimes.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    LoadFailed,
)
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE
from crossfade.serving.conversion import child, job, onnx_to_tensorrt, report, staging, warmup
from crossfade.serving.conversion.job import Job
from crossfade.serving.conversion.targets import TARGETS, steps
from crossfade.serving.repository.layout import LABEL_FILES, ModelFiles, check_name

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """The version to convert.

    Attributes:
        model: its model's folder, as it was read.
        folder: the version's own, on the local disk.
        platform, path: what runs it, and the file or folder that this opens.
    """

    model: ModelFiles
    version: int
    folder: Path
    platform: str
    path: Path


@dataclasses.dataclass(frozen=True, slots=True)
class Destination:
    """Where the result goes.

    Attributes:
        parent: the repository, or the folder that will hold ``name``.
        name: the model's folder in the repository; the result's folder, if it is not ``versioned``.
        versioned: it becomes the next version of a model.
    """

    parent: Path
    name: str
    versioned: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended; ``place`` is where the result is, if it was accepted."""

    report: Mapping[str, Any]
    place: Path | None


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What it may cost, and when it is good enough; see ``Job``."""

    timeout_s: float = 1800.0
    tolerance: float = 1e-4
    agreement: float = 0.99
    max_rows: int = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """What the user gives beside the model; see ``Job``."""

    signature: str | None = None
    after_decode: bool = False
    data: Path | None = None
    labels: Path | None = None
    others: Path | None = None
    value_range: tuple[float, float] | None = None


def convert(
    source: Source,
    target: str,
    destination: Destination,
    *,
    given: Given,
    limits: Limits,
    say: Say,
) -> Outcome:
    """Converts a version, and keeps the result only if it is proved to answer alike.

    Raises:
        InvalidArgument: it cannot be converted, or what was given does not fit; with the reason.
        FailedPrecondition: the result could not be served where it is to go.
        AlreadyExists: there is something already where it is to go.
        Unimplemented, MissingExtra: with what to install.
        LoadFailed, DeadlineExceeded, ResourceExhausted: a child crashed, took too long, or filled
            the disk.
    """
    steps(source.platform, target)
    wanted = TARGETS[target]
    if target == "tensorrt":
        onnx_to_tensorrt.check()
    if wanted.quantised and given.data is None:
        raise InvalidArgument(
            f"{target} is calibrated and proved on real data: give a folder of images or an .npz"
            " (--data)"
        )
    _check_destination(source, target, destination, given)
    with staging.stage(destination.parent) as stage:
        task = Job(
            step="convert",
            name=source.model.name,
            source=str(source.path.absolute()),
            platform=source.platform,
            options=dict(source.model.config.options),
            target=target,
            stage=str(stage.absolute()),
            signature=given.signature,
            after_decode=given.after_decode,
            data=_text(given.data),
            labels=_text(given.labels),
            others=_text(given.others),
            value_range=given.value_range,
            warmups=[(w.signature, dict(w.inputs)) for w in source.model.config.warmup],
            class_names=class_names(source),
            tolerance=limits.tolerance,
            agreement=limits.agreement,
            max_rows=min(limits.max_rows, source.model.config.max_batch_size or limits.max_rows),
        )
        task, found = _attempt(task, limits, say)
        if wanted.quantised and not found["accepted"] and "first_choices" in found:
            say("8 bits lose too much: once more, with 16 bits between the layers")
            (stage / "finer").mkdir()
            finer = dataclasses.replace(task, activation_bits=16, stage=f"{task.stage}/finer")
            try:
                finer, again = _attempt(finer, limits, say)
            except (InvalidArgument, LoadFailed) as error:
                found["notes"] = [*found.get("notes", ()), f"nor with 16 bits: {error.message}"]
            else:
                again["notes"] = [
                    *again.get("notes", ()),
                    "weights have 8 bits, what flows between the layers 16: with 8, "
                    + "; ".join(found["reasons"][:2]),
                ]
                task, found = finer, again
        names = found.pop("class_names", None) or task.class_names
        document = _document(source, task, found, limits)
        if not document["accepted"]:
            return Outcome(document, None)
        version = task.version_folder
        report.write(document, version / report.FILE)
        if names:
            (version / LABEL_FILES[0]).write_text("".join(f"{name}\n" for name in names), "utf-8")
        if destination.name == source.model.name:  # whose configuration asks for them
            _copy_warm_up_files(source, version)
        return Outcome(document, _publish(stage, version, destination))


def _attempt(task: Job, limits: Limits, say: Say) -> tuple[Job, dict[str, Any]]:
    """Converts and proves, each in a child."""
    made = job.made(child.run(dataclasses.replace(task, step="convert"), limits.timeout_s, say))
    task = dataclasses.replace(task, step="prove", made=made)
    return task, child.run(task, limits.timeout_s, say)


def class_names(source: Source) -> Sequence[str]:
    """Class names as the server finds them: configured, beside the version, beside the model."""
    for output in source.model.config.outputs:
        if output.labels is not None:
            return output.labels
        if output.labels_file is not None and output.labels_file in source.model.label_files:
            return source.model.label_files[output.labels_file].splitlines()
    texts = [
        path.read_text("utf-8", "replace")
        for name in LABEL_FILES
        if (path := source.folder / name).is_file()
    ]
    return next((t.splitlines() for t in [*texts, *source.model.label_files.values()]), [])


def _check_destination(source: Source, target: str, destination: Destination, given: Given) -> None:
    """Before any work: whether the result could be served where it is to go."""
    elsewhere = "put it somewhere else (--as NAME, or --output FOLDER)"
    place = destination.parent / destination.name
    if not destination.versioned:
        if place.exists():
            raise AlreadyExists(f"there is a '{destination.name}' already")
        return
    check_name(destination.name)
    if destination.name != source.model.name:
        if place.exists():
            raise AlreadyExists(f"the repository has a model '{destination.name}' already")
        return
    config = source.model.config
    if given.after_decode:
        raise FailedPrecondition(
            "with its decoding cut off the model takes other inputs than its versions before it: "
            + elsewhere
        )
    if given.signature not in (None, DEFAULT_SIGNATURE):
        raise FailedPrecondition(
            f"the result has one signature, {DEFAULT_SIGNATURE}, which would be another one than"
            f" its versions before it: {elsewhere}"
        )
    if any(not version.folder for version in source.model.versions.values()):
        raise FailedPrecondition(
            "the model has no version folders, and beside a new one its own files would not be"
            f" served any more: move them to '1/', or {elsewhere}"
        )
    if TARGETS[target].platform == source.platform:
        pinned = [] if config.default_filename in (None, TARGETS[target].file) else ["file name"]
    else:
        found = {
            "platform": config.platform,
            "default_filename": config.default_filename,
            "options": config.options,
        }
        pinned = [key for key, value in found.items() if value]
    if pinned:
        raise FailedPrecondition(
            f"the model's configuration sets {' and '.join(pinned)} for all its versions, which"
            f" would not fit {target}: {elsewhere}"
        )


def _copy_warm_up_files(source: Source, version: Path) -> None:
    for asked in source.model.config.warmup:
        for name in warmup.files(list(asked.inputs.values())):
            if (source.folder / name).is_file() and not (version / name).exists():
                shutil.copyfile(source.folder / name, version / name)


def _publish(stage: Path, version: Path, destination: Destination) -> Path:
    place = destination.parent / destination.name
    if not destination.versioned:
        staging.publish(version, place)
        return place
    if not place.exists():
        whole = stage / "model"
        whole.mkdir()
        version.rename(whole / "1")
        staging.publish(whole, place)
        return place / "1"
    numbers = [int(p.name) for p in place.iterdir() if p.name.isdigit() and p.name.isascii()]
    number = max(numbers, default=0) + 1
    while True:
        try:
            staging.publish(version, place / str(number))
        except AlreadyExists:  # another conversion was first
            number += 1
        else:
            return place / str(number)


def _document(
    source: Source, task: Job, found: Mapping[str, Any], limits: Limits
) -> dict[str, Any]:
    target = TARGETS[task.target]
    result = task.version_folder / target.file
    numbers = (
        f"every value within {limits.tolerance:g} of the source's, times its output's largest"
        " value where that is above 1"
    )
    choices = (
        f"first choices the same in {limits.agreement:.1%} of the real rows (without classes:"
        f" a cosine of {limits.agreement:g}, of whole numbers as much in common), accuracy at"
        " most one point lower, all values finite"
    )
    document = {
        **found,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "signature": task.made.signature,
        "source": {
            "name": source.model.name,
            "version": source.version,
            "platform": source.platform,
            "file": source.path.name,
            "size_bytes": _size(source.path),
        },
        "result": {
            "target": task.target,
            "platform": target.platform,
            "file": target.file,
            "size_bytes": _size(result),
            "calibration": task.made.calibration,
            "activation_bits": task.activation_bits if target.quantised else None,
        },
        "versions": dict(task.made.versions),
        "thresholds": {
            "tolerance": limits.tolerance,
            "agreement": limits.agreement,
            "text": choices if target.quantised else numbers,
        },
        "preprocessing": None,
    }
    cut = task.made.cut
    if cut is not None:
        shape = list(cut.shape or ())
        document["preprocessing"] = {
            "input": cut.name,
            "dtype": cut.dtype,
            "shape": shape,
            "note": f"input '{cut.name}' is {cut.dtype} {shape}: the source decodes and resizes"
            " files itself; what it makes of them is what the result takes",
        }
    return document


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
