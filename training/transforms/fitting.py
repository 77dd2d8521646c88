"""Makes a specification of planned columns and data: statistics, vocabularies, target encodings."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from crossfade.training.transforms import spec as specs
from crossfade.training.transforms.errors import InvalidSpec, WrongTable
from crossfade.training.transforms.evaluate import texts as texts_of
from crossfade.training.transforms.evaluate import transform
from crossfade.training.transforms.plan import PlannedColumn
from crossfade.training.transforms.spec import Embedding, TargetEncoding, TransformSpec
from crossfade.training.transforms.table import Table

Array = npt.NDArray[Any]
Style = Literal["trees", "linear", "network"]
_PARTS: Final[tuple[specs.Part, ...]] = ("year", "month", "day", "weekday", "hour", "epoch_days")
_TINY: Final = 1e-12


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How columns become features.

    Attributes:
        style: ``trees``: numbers as they are, with NaN; categories by place and target. ``linear``:
            numbers imputed and standardised, skewed ones by their logarithm; categories one-hot.
            ``network``: the same with embeddings of categories.
        max_categories: the most frequent ones that a column keeps; others are unknown.
        min_count: rows that a category needs to be kept.
        target_encode_above: columns with more categories than this are encoded by the target; in
            the style ``network``, by an embedding of hashes.
        smoothing: of target encodings, in rows of the mean over all that are added to a category.
        crosses: pairs of columns to cross; number columns among them are put into ten buckets.
    """

    style: Style = "trees"
    max_categories: int = 256
    min_count: int = 2
    target_encode_above: int = 16
    smoothing: float = 20.0
    crosses: Sequence[tuple[str, str]] = ()


def fit(
    table: Table,
    columns: Sequence[PlannedColumn],
    target: Array | None = None,
    options: Options | None = None,
) -> TransformSpec:
    """Fits a specification.

    Args:
        table: training rows, none of a test split.
        columns: what to make features of.
        target: float64 [rows] or, of classes, one-hot [rows, classes]; for target encodings.
        options: how.

    Raises:
        WrongTable: a column is missing, or there are no rows.
        InvalidSpec: no column has any value.
    """
    options = options or Options()
    if not len(table):
        raise WrongTable("the table has no rows")
    made: list[dict[str, Any]] = []
    used: dict[str, PlannedColumn] = {}
    for column in columns:
        found = _transforms(table, column, target, options)
        if found:
            used[column.name] = column
            made += found
    derived: list[dict[str, Any]] = []
    for pair in options.crosses:
        made += _cross(table, used, pair, derived=derived, target=target, options=options)
    if not made:
        raise InvalidSpec("no column has values that differ: there is nothing to learn from")
    return specs.make(
        columns=[{"name": c.name, "kind": c.kind} for c in used.values()],
        derived=derived,
        transforms=made,
    )


def nothing_to_learn(table: Table, column: PlannedColumn) -> str:
    """Why ``fit`` makes no feature of a column, for people."""
    if column.kind == "number":
        known = table.numbers(column.name)
        return "its numbers are all the same" if np.isfinite(known).any() else "it has no numbers"
    counts = collections.Counter(table.texts(column.name).tolist())
    if len(counts) < 2:
        return "its values are all the same"
    return "no value comes twice" if max(counts.values()) < 2 else "too few values come twice"


def fit_transform(
    table: Table,
    columns: Sequence[PlannedColumn],
    target: Array,
    options: Options | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
) -> tuple[TransformSpec, Array, Array]:
    """Fits, and gives the training rows' features with target encodings out of fold.

    A row's own target is in none of its features: each fold is encoded by what the others show.

    Returns:
        The specification, fitted on all rows; features and embedding rows as ``transform`` gives.
    """
    options = options or Options()
    spec = fit(table, columns, target, options)
    dense, ids = transform(spec, table)
    encoded = [t for t in spec.transforms if isinstance(t, TargetEncoding)]
    if not encoded:
        return spec, dense, ids
    rows = len(table)
    fold_of = np.random.default_rng(seed).permutation(rows) % folds
    for fold in range(folds):
        held = fold_of == fold
        if not held.any() or held.all():
            continue
        refitted = tuple(
            _encode(
                t.column,
                t.categories,
                texts_of(spec, table, t.column)[~held],
                target[~held],
                options.smoothing,
            )
            if isinstance(t, TargetEncoding)
            else t
            for t in spec.transforms
        )
        out_of_fold = spec.model_copy(update={"transforms": refitted})
        dense[held] = transform(out_of_fold, table.rows(held))[0]
    return spec, dense, ids


def _transforms(
    table: Table, column: PlannedColumn, target: Array | None, options: Options
) -> list[dict[str, Any]]:
    if column.kind == "number":
        return _number(table.numbers(column.name), column.name, options.style)
    if column.kind == "timestamp":
        trees = options.style == "trees"
        return [
            {
                "transform": "timestamp",
                "column": column.name,
                "parts": _PARTS,
                "cyclic": not trees,
                "missing": None if trees else 0.0,
            },
            *_flag(table, column),
        ]
    texts = table.texts(column.name)
    categories = list(column.categories) or _categories(texts, options)
    return _text(column.name, categories, texts, target, options)


def _number(values: Array, name: str, style: Style) -> list[dict[str, Any]]:
    known = values[np.isfinite(values)]
    if not len(known) or known.min() == known.max():
        return []
    if style == "trees":
        return [{"transform": "identity", "column": name}]
    flag = [{"transform": "missing_flag", "column": name}] if len(known) < len(values) else []
    low, median, high = np.quantile(known, [0.01, 0.5, 0.99])
    made: dict[str, Any] = {"transform": "standardize", "column": name, "missing": float(median)}
    scaled = known
    if low >= 0 and high > 10 * max(median, _TINY):
        made |= {"transform": "log", "shift": 0.0}
        scaled = np.log1p(np.maximum(known, 0))
    with np.errstate(over="ignore"):
        mean, std = float(scaled.mean()), float(scaled.std())
    if not math.isfinite(mean) or not math.isfinite(std) or std < _TINY * max(abs(mean), _TINY):
        return [{"transform": "identity", "column": name, "missing": float(median)}, *flag]
    return [made | {"mean": mean, "std": std}, *flag]


def _flag(table: Table, column: PlannedColumn) -> list[dict[str, Any]]:
    missing = any(not text for text in table.texts(column.name).tolist())
    return [{"transform": "missing_flag", "column": column.name}] if missing else []


def _categories(texts: Array, options: Options) -> list[str]:
    counts = collections.Counter(texts.tolist())
    kept = [word for word, count in counts.most_common() if count >= options.min_count]
    return sorted(kept[: options.max_categories])


def _text(
    name: str, categories: Sequence[str], texts: Array, target: Array | None, options: Options
) -> list[dict[str, Any]]:
    """A column of texts; none of one that has the same in each row."""
    if len(set(texts.tolist())) < 2 or not categories:
        return []
    many = len(categories) > options.target_encode_above
    base = {"column": name, "categories": categories}
    encoding = []
    if target is not None and many:
        encoded = _encode(name, categories, texts, target, options.smoothing)
        encoding = [encoded.model_dump()]
    if options.style == "network":
        if not many:
            return [{"transform": "embedding", **base}]
        return [{"transform": "hash", "column": name, "buckets": 2 * len(categories)}, *encoding]
    if options.style == "trees":
        ordinal = {"transform": "ordinal", **base}
        return [*encoding, ordinal] if many else [{"transform": "one_hot", **base}]
    return encoding or [{"transform": "one_hot", **base, "unknown": "feature"}]


def _cross(
    table: Table,
    used: dict[str, PlannedColumn],
    pair: tuple[str, str],
    *,
    derived: list[dict[str, Any]],
    target: Array | None,
    options: Options,
) -> list[dict[str, Any]]:
    sides = []
    for name in pair:
        column = used.get(name)
        if column is None or column.kind == "timestamp":
            raise InvalidSpec(f"a cross reads number and text columns with values; not '{name}'")
        if column.kind == "text":
            sides.append(name)
            continue
        values = table.numbers(name)
        boundaries = np.unique(np.quantile(values[np.isfinite(values)], np.arange(0.1, 1, 0.1)))
        bucket = {"derive": "bucket", "name": f"{name} bucket", "column": name}
        if all(each["name"] != bucket["name"] for each in derived):
            derived.append(bucket | {"boundaries": boundaries.tolist()})
        sides.append(str(bucket["name"]))
    name = " x ".join(pair)
    derived.append({"derive": "cross", "name": name, "columns": sides})
    spec = specs.make(
        columns=[{"name": c.name, "kind": c.kind} for c in used.values()],
        derived=derived,
        transforms=[{"transform": "hash", "column": name, "buckets": 1}],
    )
    texts = texts_of(spec, table, name)
    return _text(name, _categories(texts, options), texts, target, options)


def _encode(
    name: str, categories: Sequence[str], texts: Array, target: Array, smoothing: float
) -> TargetEncoding:
    """Means of the target by category, drawn towards the mean over all."""
    wide = target.reshape(len(target), -1).astype(np.float64)
    mean = wide.mean(axis=0)
    places = {word: place for place, word in enumerate(categories)}
    place = np.array([places.get(text, len(categories)) for text in texts.tolist()])
    counts = np.bincount(place, minlength=len(categories) + 1)[:-1, None]
    sums = np.stack(
        [np.bincount(place, column, len(categories) + 1)[:-1] for column in wide.T], axis=1
    )
    values = (sums + smoothing * mean) / (counts + smoothing)
    return TargetEncoding(
        column=name,
        categories=tuple(categories),
        values=tuple(tuple(row) for row in values.tolist()),
        default=tuple(mean.tolist()),
    )


def embedding_widths(spec: TransformSpec) -> list[int]:
    """A width for the embedding of each id, in order; it grows with the root of its rows."""
    found = []
    for each in spec.transforms:
        if each.ids:
            exact = isinstance(each, Embedding)
            found.append(max(2, min(64, round((1.6 if exact else 1.2) * each.ids**0.56))))
    return found
