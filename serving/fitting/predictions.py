"""What the members of an ensemble answer to rows of data, each asked as the server asks it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.combine import MemberScores
from crossfade.ensemble.members import Known, Live
from crossfade.ensemble.scores import log_scores
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition, Internal
from crossfade.runtimes.core.model import InferRequest, InferResponse, InferResult, Tensor
from crossfade.serving.conversion.data import Rows

Advance = Callable[[int], None]  # is told how many more rows have been answered


@dataclasses.dataclass(frozen=True, slots=True)
class Predictions:
    """One member's answers.

    Attributes:
        scores: [N, C] in the member's own order of labels, as it stores them; what stands at rows
            without an answer does not count.
        answered: [N].
        row_ms: [N] time that a row took; of a batch, its share.
        failure: of the first row without an answer, why.
    """

    scores: Tensor
    answered: npt.NDArray[np.bool_]
    row_ms: npt.NDArray[np.float64]
    failure: str = ""


def ask(
    member: Known, live: Live, output: str, rows: Rows, *, batch_rows: int, advance: Advance
) -> Predictions:
    """Asks a member about every row, preprocessing included.

    Where a batch fails its rows are asked one by one, so that one bad row costs no other.

    Args:
        member: which.
        live: where it is leased.
        output: the ensemble's name of its scores.
        rows: named as the ensemble's inputs.
        batch_rows: rows of a request, where the member takes several.
        advance: see ``Advance``.

    Raises:
        FailedPrecondition: it answers no row, or with more or less than one answer a row.
    """
    count = rows.count
    step = max(1, min(batch_rows, member.max_rows)) if rows.stacked else 1
    scores: Tensor | None = None
    answered, row_ms = np.zeros(count, np.bool_), np.zeros(count)
    failure = ""
    with live.lease(member.member.ref) as model:

        def put(first: int, end: int) -> CrossfadeError | None:
            nonlocal scores
            request = member.to_member(
                InferRequest(rows.batch(first, end), outputs=(output,), rows=end - first)
            )
            began_s = time.perf_counter()
            (result,) = model.infer([request])
            spent_ms = (time.perf_counter() - began_s) * 1000
            if not isinstance(result, InferResponse):
                return result
            found = _by_row(member, result, output, end - first)
            if scores is None:
                scores = np.zeros((count, found.shape[1]), found.dtype)
            scores[first:end], answered[first:end] = found, True
            row_ms[first:end] = spent_ms / (end - first)
            return None

        for first in range(0, count, step):
            end = min(first + step, count)
            error = put(first, end)
            if error is not None:
                alone = [put(row, row + 1) for row in range(first, end)] if step > 1 else [error]
                failure = failure or next((one.message for one in alone if one), "")
            if scores is None and end >= min(count, batch_rows):
                raise FailedPrecondition(f"member '{member.name}' answers no row: {failure}")
            advance(end - first)
    assert scores is not None
    return Predictions(scores, answered, row_ms, failure)


def _by_row(member: Known, result: InferResult, output: str, rows: int) -> Tensor:
    assert isinstance(result, InferResponse)
    array = member.from_member(result).outputs[output]
    classes = array.shape[-1] if array.ndim else 0
    if not classes or array.size != rows * classes:
        raise FailedPrecondition(
            f"member '{member.name}' answers {rows} rows with the shape {list(array.shape)}; a fit"
            " needs one score for each class and row"
        )
    # Types that numpy has only by extension are not kept in files.
    kept = array if array.dtype.kind in "iub" or array.dtype == np.float64 else np.float32(array)
    return np.asarray(kept).reshape(rows, classes)


def checked(found: Predictions, scores: MemberScores) -> Predictions:
    """Without the rows whose scores cannot be what the member declares: it fails on these, too."""
    where = np.flatnonzero(found.answered)

    def why(rows: npt.NDArray[np.intp]) -> str:
        try:
            log_scores(found.scores[rows], scores.kind, quantization=scores.quantization)
        except Internal as error:
            return error.message
        return ""

    if not len(where) or not why(where):
        return found
    answered, failure = found.answered.copy(), found.failure
    for row in where:
        if reason := why(np.array([row])):
            answered[row], failure = False, failure or reason
    return dataclasses.replace(found, answered=answered, failure=failure)
