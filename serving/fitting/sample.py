"""The rows that a fit learns from: labelled, and answered by every member."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.combine import MemberScores
from crossfade.ensemble.fitting import joined_inputs, present
from crossfade.ensemble.labels import canonical
from crossfade.ensemble.members import Known, look
from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument
from crossfade.runtimes.core.model import Signature, Tensor
from crossfade.serving.config import ensemble_config as config
from crossfade.serving.conversion import data
from crossfade.serving.conversion.data import Rows
from crossfade.serving.conversion.probes import Range
from crossfade.serving.fitting import cache
from crossfade.serving.fitting.cache import Cache
from crossfade.serving.fitting.predictions import Predictions, ask, checked
from crossfade.serving.lifecycle.ensembles import members_of
from crossfade.serving.lifecycle.manager import Manager
from crossfade.serving.repository.source import Source

MAX_ROWS: Final = 50_000
# Is told what goes on, how many rows of it are done, and of how many.
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """What a user gives a fit.

    Attributes:
        data: a folder of images, or an ``.npz`` with an array for each input of the ensemble.
        labels: a CSV with the columns ``label`` and, for images, ``file``.
        value_range: what 0 and 255 of a picture become for an input of floats.
        batch_rows: rows of a request to a member.
    """

    data: Path
    labels: Path
    value_range: Range | None = None
    batch_rows: int = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """Rows that a member did not answer, and why the first of them."""

    rows: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What every member said of rows whose class is known.

    Attributes:
        names: of the members.
        scores: for each member [N, C_m], as it stores them, in its own order of labels.
        truth: [N] places in the ensemble's labels.
        row_ms: for each member the median time of a row.
        unlabelled: rows of the data that the labels say nothing about.
        failed: by member, where it failed; these rows are left out for all.
        asked: rows that members were asked about now; the others were kept from before.
    """

    names: tuple[str, ...]
    scores: tuple[Tensor, ...]
    truth: npt.NDArray[np.intp]
    row_ms: tuple[float, ...]
    unlabelled: int
    failed: dict[str, Failed]
    asked: int

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.truth)


@dataclasses.dataclass(frozen=True, slots=True)
class Asking:
    """How a sample is collected.

    Attributes:
        given: where the data are.
        manager: where members are leased.
        source: holds their files.
        kept: predictions of earlier fits.
        progress: see ``Progress``.
    """

    given: Given
    manager: Manager
    source: Source
    kept: Cache
    progress: Progress

    def load(self, section: config.Ensemble) -> list[Known]:
        """Loads the members of an ensemble, and all that these need, as a server does.

        Raises:
            LoadFailed, NotFound: a member cannot be loaded, and why.
            FailedPrecondition: it is not as the ensemble declares it.
        """
        members = members_of(section)
        for name in dict.fromkeys(member.ref.name for member in members):
            self.manager.load(name)
        return present([(member.name, look(member, self.manager)) for member in members])

    def collect(
        self,
        members: Sequence[Known],
        output: str,
        scores: Sequence[MemberScores],
        labels: Sequence[str],
        least: int,
        *,
        least_for: str = "",
    ) -> Sample:
        """Reads data and labels, and has every member answer.

        Args:
            members: of the ensemble.
            output: its name of the scores.
            scores: what those of each member are.
            labels: of the ensemble, in index order.
            least: rows that are needed.
            least_for: for what, and what else would help.

        Raises:
            NotFound, InvalidArgument: the data or labels cannot be read, do not fit the ensemble,
                or are too few.
            FailedPrecondition: a member answers no row.
        """
        rows, truth, unlabelled = self._labelled(members, labels)
        _enough(len(truth), least, "labelled rows", least_for)
        marked, asked = cache.digest(rows.inputs), 0
        found = []
        for member, declared in zip(members, scores, strict=True):
            settings = (output, self.given.batch_rows)
            key = cache.key(member, self.manager, [self.source], marked, settings)
            one = self.kept.get(key, rows.count)
            if one is None:
                one = self._ask(member, output, rows)
                self.kept.put(key, one)
                asked += rows.count
            if one.scores.shape[1] != len(declared.labels):
                raise FailedPrecondition(
                    f"member '{member.name}' has {len(declared.labels)} labels, but answers with"
                    f" {one.scores.shape[1]} scores"
                )
            found.append(checked(one, declared))
        good = np.all([one.answered for one in found], axis=0)
        failed = {
            member.name: Failed(int(np.sum(~one.answered)), one.failure)
            for member, one in zip(members, found, strict=True)
            if not one.answered.all()
        }
        reasons = "; ".join(f"'{name}' fails: {one.reason}" for name, one in failed.items())
        _enough(int(good.sum()), least, "rows that all members answer", least_for, reasons)
        return Sample(
            tuple(member.name for member in members),
            tuple(one.scores[good] for one in found),
            truth[good],
            tuple(float(np.median(one.row_ms[one.answered])) for one in found),
            unlabelled,
            failed,
            asked,
        )

    def _labelled(
        self, members: Sequence[Known], labels: Sequence[str]
    ) -> tuple[Rows, npt.NDArray[np.intp], int]:
        """The rows with a label, its place [N], and how many have none."""
        batched = all(member.signature.batched for member in members)
        signature = Signature(joined_inputs(members), (), batched)
        everything = data.read(self.given.data, signature, self.given.value_range, MAX_ROWS)
        truth = _truth(self.given.labels, everything, labels)
        where = np.flatnonzero(truth >= 0)
        inputs = {name: array[where] for name, array in everything.inputs.items()}
        rows = dataclasses.replace(everything, inputs=inputs, names=())
        return rows, truth[where], everything.count - len(where)

    def _ask(self, member: Known, output: str, rows: Rows) -> Predictions:
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            self.progress(member.name, done, rows.count)

        batch_rows = self.given.batch_rows
        return ask(member, self.manager, output, rows, batch_rows=batch_rows, advance=advance)


def _truth(path: Path, rows: Rows, labels: Sequence[str]) -> npt.NDArray[np.intp]:
    """The place of each row's label; -1 where it has none."""
    place = {label: number for number, label in enumerate(labels)}
    texts = data.read_label_texts(path, rows)
    named = [canonical(text) or None if text is not None else None for text in texts]
    unknown = sorted({label for label in named if label is not None and label not in place})
    if unknown:
        raise InvalidArgument(
            f"'{path.name}' has labels that no member knows: {_listed(unknown)}; the ensemble's are"
            f" {_listed(labels)}"
        )
    return np.array([-1 if label is None else place[label] for label in named], np.intp)


def _enough(rows: int, least: int, what: str, least_for: str, why: str = "") -> None:
    if rows < least:
        because = f" ({why})" if why else ""
        needed = f"{least} are needed {least_for}".rstrip()
        raise InvalidArgument(f"there are {rows} {what}, but {needed}{because}")


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 8} more" if len(labels) > 8 else ""
    return ", ".join(repr(label) for label in labels[:8]) + more


def unseen(sample: Sample, labels: Sequence[str]) -> list[str]:
    """Labels that no row has."""
    counts = np.bincount(sample.truth, minlength=len(labels))
    return [label for label, count in zip(labels, counts, strict=True) if not count]


def only_output(names: Sequence[str], wanted: str | None) -> str:
    """The output whose scores count.

    Raises:
        InvalidArgument: there are several, or not the one that is wanted.
    """
    if wanted is not None and wanted not in names:
        raise InvalidArgument(f"the ensemble combines {', '.join(names)}, not '{wanted}'")
    if wanted is None and len(names) > 1:
        raise InvalidArgument(f"the ensemble combines {', '.join(names)}: say which (--output)")
    return wanted or names[0]
