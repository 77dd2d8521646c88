"""The card of a trained version, ``lineage.json`` beside its files: what it was made of.

``read_card`` shows it; ``check`` is for whoever wants no version without a true one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import pydantic

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.runtimes.options import explain

FILE: Final = "lineage.json"
_LARGEST_BYTES: Final = 16 << 20
_CHUNK_BYTES: Final = 1 << 20
# What may come into a version's folder after the card: what was found out about the version.
_LATER: Final = frozenset({FILE, "conversion.json"})

Digest = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[float, pydantic.Field(allow_inf_nan=False)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Origin(_Section):
    """Something that the version was made of: a data set, or the export that it began from.

    Attributes:
        sha256: ``digest_folder`` or ``digest_file`` of it.
        counts: what is in it, such as examples of each split.
    """

    name: str
    sha256: Digest
    counts: Mapping[str, int] = {}


class Parity(_Section):
    """How far the written file answers like the trained module.

    Attributes:
        max_abs: the largest difference of any output value, over all inputs.
        tolerance: what was allowed.
        inputs: rows that were compared.
    """

    max_abs: Number
    tolerance: Number
    inputs: Annotated[int, pydantic.Field(ge=1)]


class Card(_Section):
    """What a trained version was made of, and how well it does.

    Attributes:
        task: the trainer's name.
        created: UTC, ISO 8601.
        seed: of the run.
        data: what it was trained on.
        export: what its weights began from; ``None`` is from nothing.
        config: of the run, complete; ``left_out`` in it says why columns are not learned from.
        provenance: where a value of ``config`` is from, by its dotted key: ``file``, ``command
            line``, ``tuned`` …; what is not in it is a default of the trainer's.
        metrics: by name, such as ``test/accuracy``.
        environment: versions of packages and of the machine, by name.
        revision: of the repository that the trainer ran in, with ``-dirty`` for one with changes.
        files: digests of the version's files, by their path in its folder.
        format: of this card.
    """

    task: str
    created: str
    seed: int
    data: Origin
    export: Origin | None = None
    config: Mapping[str, Any]
    provenance: Mapping[str, str] = {}
    metrics: Mapping[str, Number]
    parity: Parity | None = None
    environment: Mapping[str, str]
    revision: str | None = None
    files: Mapping[str, Digest]
    format: Literal[1] = 1

    def text(self) -> str:
        """The card as it is written."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"


def read_card(folder: Path) -> Card | None:
    """The card in a version's folder; ``None`` without one.

    Raises:
        FailedPrecondition: it cannot be read; says why.
    """
    path = folder / FILE
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise FailedPrecondition(f"{FILE} is too large to be a card")
        values = json.loads(path.read_text("utf-8"))
        return Card.model_validate(values)
    except FileNotFoundError:
        return None
    except pydantic.ValidationError as error:
        raise FailedPrecondition(f"{FILE}: {explain(error, Card, 'key')}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FailedPrecondition(f"{FILE} cannot be read as JSON") from error


def check(folder: Path) -> Card:
    """The card of a version whose files are those that it was written for.

    Raises:
        FailedPrecondition: there is no card, it cannot be read, or a file was changed, is
            missing, or is not in it.
    """
    card = read_card(folder)
    if card is None:
        raise FailedPrecondition(
            f"the version has no {FILE}: it was not trained by `crossfade train`, so what it was"
            " made of is not known"
        )
    there = {p.relative_to(folder).as_posix(): p for p in _files(folder)}
    for name, digest in card.files.items():
        if name not in there:
            raise FailedPrecondition(f"'{name}' of the version's {FILE} is not there")
        if digest_file(there[name]) != digest:
            raise FailedPrecondition(f"'{name}' is not the file that {FILE} was written for")
    others = sorted(there.keys() - card.files.keys() - _LATER)
    if others:
        raise FailedPrecondition(f"'{others[0]}' was added to the version: {FILE} has it not")
    return card


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_folder(path: Path) -> str:
    """SHA-256 over the paths and digests of all files below a folder, or of one file."""
    if path.is_file():
        return digest_file(path)
    return digest_of(
        f"{p.relative_to(path).as_posix()}\0{digest_file(p)}" for p in sorted(_files(path))
    )


def digest_of(lines: Iterable[str]) -> str:
    """SHA-256 over lines."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def lines_of(card: Card) -> list[str]:
    """The card for people."""
    made = f"{card.task}, {card.created}, seed {card.seed}"
    counts = ", ".join(f"{count:,} {name}" for name, count in card.data.counts.items())
    lines = [
        f"trained by {made}",
        f"on {card.data.name} (sha256 {card.data.sha256[:12]}){': ' if counts else ''}{counts}",
    ]
    if card.export is not None:
        lines.append(f"begun from {card.export.name} (sha256 {card.export.sha256[:12]})")
    left_out = card.config.get("left_out")
    if isinstance(left_out, Mapping):
        lines += [
            f"left out  {name}: {why}, so there is nothing to learn from"
            for name, why in left_out.items()
        ]
    lines += _metrics(card.metrics)
    if card.parity is not None:
        lines.append(
            f"answers like the trained module to {card.parity.max_abs:.2g}"
            f" ({card.parity.inputs:,} inputs)"
        )
    if card.revision:
        lines.append(f"by revision {card.revision}")
    return lines


def _metrics(metrics: Mapping[str, float]) -> list[str]:
    """A line for each, with its interval where ``NAME/low`` and ``NAME/high`` are there."""
    intervals = {
        name: (metrics[f"{name}/low"], metrics[f"{name}/high"])
        for name in metrics
        if f"{name}/low" in metrics and f"{name}/high" in metrics
    }
    ends = {f"{name}/{end}" for name in intervals for end in ("low", "high")}
    lines = []
    for name, value in metrics.items():
        if name not in ends:
            low_high = intervals.get(name)
            shown = "" if low_high is None else " ({:.4g} to {:.4g})".format(*low_high)
            lines.append(f"{name} {value:.4g}{shown}")
    return lines


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
