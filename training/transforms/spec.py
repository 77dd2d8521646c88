"""The specification of transforms: what is kept beside a model, as JSON.

Each transform reads one column and gives float32 features (``dense``) or int64 rows of an embedding
table (``ids``). Numbers are computed in float64 and rounded once, at the end. A number that is NaN
or infinite has no value, and so has an empty text.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

import pydantic

from crossfade.runtimes.core.errors import escape
from crossfade.training.transforms.errors import InvalidSpec, UnknownTransform, UnknownVersion

VERSION: Final = 1
PARTS: Final = ("year", "month", "day", "weekday", "hour", "minute", "second", "epoch_days")
PERIODS: Final = {"month": 12, "weekday": 7, "hour": 24, "minute": 60}
_MAX_BYTES: Final = 64 << 20

Kind = Literal["number", "text", "timestamp"]
Part = Literal["year", "month", "day", "weekday", "hour", "minute", "second", "epoch_days"]
Float = Annotated[float, pydantic.Field(allow_inf_nan=False)]
Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]


class _Value(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class _Transform(_Value):
    column: str

    @property
    def reads(self) -> Sequence[Kind]:
        """The kinds of column that it takes."""
        return ("text",)

    @property
    def dense(self) -> Sequence[str]:
        """Names of its features."""
        return ()

    @property
    def ids(self) -> int:
        """Rows of the embedding table that it points into; 0 of a dense one."""
        return 0


class _Number(_Transform):
    """A number; ``missing`` stands in where there is none, and without it NaN stays."""

    missing: Float | None = None

    @property
    def reads(self) -> Sequence[Kind]:
        return ("number",)

    @property
    def dense(self) -> Sequence[str]:
        return (self.column,)


class Identity(_Number):
    """The number as it is."""

    transform: Literal["identity"] = "identity"


class Standardize(_Number):
    """(x - mean) / std, the z-score."""

    transform: Literal["standardize"] = "standardize"
    mean: Float
    std: Positive


class MinMax(_Number):
    """(x - minimum) / (maximum - minimum), held in 0..1 if ``clip``."""

    transform: Literal["min_max"] = "min_max"
    minimum: Float
    maximum: Float
    clip: bool = False

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> MinMax:
        if not self.minimum < self.maximum or math.isinf(self.maximum - self.minimum):
            raise ValueError("'maximum' has to be above 'minimum'")
        return self


class Log(_Number):
    """(log(1 + max(x - shift, 0)) - mean) / std."""

    transform: Literal["log"] = "log"
    shift: Float = 0.0
    mean: Float = 0.0
    std: Positive = 1.0


class MissingFlag(_Transform):
    """1 where there is no value, else 0."""

    transform: Literal["missing_flag"] = "missing_flag"

    @property
    def reads(self) -> Sequence[Kind]:
        """See ``_Transform``."""
        return ("number", "text", "timestamp")

    @property
    def dense(self) -> Sequence[str]:
        """See ``_Transform``."""
        return (f"{self.column} missing",)


class _Categories(_Transform):
    """``categories`` may hold the empty text, which then is the category of missing values."""

    categories: tuple[str, ...] = pydantic.Field(min_length=1)

    @pydantic.field_validator("categories")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a category stands twice")
        for category in value:
            category.encode()  # a lone surrogate is no text, and a ValueError
        return value


class OneHot(_Categories):
    """A feature for each category; others are all zeros, or have a feature of their own."""

    transform: Literal["one_hot"] = "one_hot"
    unknown: Literal["zeros", "feature"] = "zeros"

    @property
    def dense(self) -> Sequence[str]:
        """See ``_Transform``."""
        names = [f"{self.column}={category}" for category in self.categories]
        return names if self.unknown == "zeros" else [*names, f"{self.column} unknown"]


class Ordinal(_Categories):
    """The category's place, from 0; NaN for others. For trees."""

    transform: Literal["ordinal"] = "ordinal"

    @property
    def dense(self) -> Sequence[str]:
        """See ``_Transform``."""
        return (self.column,)


class TargetEncoding(_Categories):
    """What was seen of the target where the category was; ``default`` for others.

    ``values`` has a row for each category, with as many numbers as ``default``: one, or one for
    each class.
    """

    transform: Literal["target_encoding"] = "target_encoding"
    values: tuple[tuple[Float, ...], ...]
    default: tuple[Float, ...] = pydantic.Field(min_length=1)

    @pydantic.model_validator(mode="after")
    def _shape(self) -> TargetEncoding:
        if len(self.values) != len(self.categories):
            raise ValueError("'values' needs a row for each category")
        if any(len(row) != len(self.default) for row in self.values):
            raise ValueError("each row of 'values' needs as many numbers as 'default'")
        return self

    @property
    def dense(self) -> Sequence[str]:
        """See ``_Transform``."""
        width = len(self.default)
        base = f"{self.column} target"
        return [base] if width == 1 else [f"{base} {i}" for i in range(width)]


class Embedding(_Categories):
    """Row 1 + the category's place of an embedding table; row 0 for others."""

    transform: Literal["embedding"] = "embedding"

    @property
    def ids(self) -> int:
        """See ``_Transform``."""
        return len(self.categories) + 1


class Hash(_Transform):
    """Row 1 + MurmurHash3 (32 bits, of the UTF-8 text) modulo ``buckets``; 0 if missing."""

    transform: Literal["hash"] = "hash"
    buckets: int = pydantic.Field(ge=1, le=1 << 24)
    seed: int = pydantic.Field(default=0, ge=0, le=(1 << 31) - 1)

    @property
    def ids(self) -> int:
        """See ``_Transform``."""
        return self.buckets + 1


class Timestamp(_Transform):
    """Parts of a moment, in UTC: ISO 8601 texts, or numbers since 1970 in ``unit``.

    A text without an offset is UTC. ``cyclic`` gives sine and cosine of the parts that have a
    period (month, weekday, hour, minute) in place of the number. Monday is weekday 0.
    """

    transform: Literal["timestamp"] = "timestamp"
    parts: tuple[Part, ...] = pydantic.Field(min_length=1)
    unit: Literal["s", "ms", "us"] = "s"
    cyclic: bool = False
    missing: Float | None = None

    @pydantic.field_validator("parts")
    @classmethod
    def _distinct(cls, value: tuple[Part, ...]) -> tuple[Part, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a part stands twice")
        return value

    @property
    def reads(self) -> Sequence[Kind]:
        """See ``_Transform``."""
        return ("timestamp", "number")

    @property
    def dense(self) -> Sequence[str]:
        """See ``_Transform``."""
        names = []
        for part in self.parts:
            name = f"{self.column} {part}"
            names += [f"{name} sin", f"{name} cos"] if self.is_cyclic(part) else [name]
        return names

    def is_cyclic(self, part: str) -> bool:
        """Whether a part is given as sine and cosine."""
        return self.cyclic and part in PERIODS


Transform = Annotated[
    Identity
    | Standardize
    | MinMax
    | Log
    | MissingFlag
    | OneHot
    | Ordinal
    | TargetEncoding
    | Embedding
    | Hash
    | Timestamp,
    pydantic.Field(discriminator="transform"),
]


class Bucket(_Value):
    """Makes a text column of a number: how many boundaries are below it, ``0`` to ``n``."""

    derive: Literal["bucket"] = "bucket"
    name: str
    column: str
    boundaries: tuple[Float, ...] = pydantic.Field(min_length=1)

    @pydantic.field_validator("boundaries")
    @classmethod
    def _increasing(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in itertools.pairwise(value)):
            raise ValueError("'boundaries' have to increase")
        return value


class Cross(_Value):
    """Makes a text column of several: their texts, with U+001F between them."""

    derive: Literal["cross"] = "cross"
    name: str
    columns: tuple[str, ...] = pydantic.Field(min_length=2, max_length=8)


Derived = Annotated[Bucket | Cross, pydantic.Field(discriminator="derive")]


class Column(_Value):
    """A column of the table: numbers, texts, or texts that are ISO 8601 timestamps."""

    name: str = pydantic.Field(min_length=1)
    kind: Kind


class TransformSpec(_Value):
    """See the module.

    Attributes:
        columns: what the table has to have.
        derived: text columns made of others, each only of those before it.
        transforms: in the order of the features.
    """

    version: Literal[1] = VERSION
    columns: tuple[Column, ...] = pydantic.Field(min_length=1)
    derived: tuple[Derived, ...] = ()
    transforms: tuple[Transform, ...] = pydantic.Field(min_length=1)

    @pydantic.model_validator(mode="after")
    def _refers(self) -> TransformSpec:
        kinds: dict[str, Kind] = {}
        for column in self.columns:
            if column.name in kinds:
                raise ValueError(f"column '{column.name}' stands twice")
            kinds[column.name] = column.kind
        for made in self.derived:
            if made.name in kinds:
                raise ValueError(f"column '{made.name}' stands twice")
            if isinstance(made, Bucket):
                _check(kinds, made.column, ("number",), "bucket")
            else:
                for name in made.columns:
                    _check(kinds, name, ("text",), "cross")
            kinds[made.name] = "text"
        for each in self.transforms:
            _check(kinds, each.column, each.reads, each.transform)
        return self

    @property
    def dense_names(self) -> list[str]:
        """Names of the float32 features, in order."""
        return [name for each in self.transforms for name in each.dense]

    @property
    def id_columns(self) -> list[str]:
        """Columns of the embedding rows, in order."""
        return [each.column for each in self.transforms if each.ids]

    @property
    def id_sizes(self) -> list[int]:
        """Rows of each embedding table, in order."""
        return [each.ids for each in self.transforms if each.ids]

    def to_json(self) -> str:
        """The text that ``from_json`` reads."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> TransformSpec:
        """Reads a specification.

        Raises:
            UnknownVersion: it is of another version.
            UnknownTransform: it has a transform or derived column that does not exist here.
            InvalidSpec: it is wrong in another way; the message says where.
        """
        if len(text) > _MAX_BYTES:
            raise InvalidSpec(f"the specification has more than {_MAX_BYTES} bytes")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise InvalidSpec("the specification is no JSON object")
        if document.get("version", VERSION) != VERSION:
            raise UnknownVersion(
                f"the specification is of version {escape(str(document['version']))}; this release"
                f" reads version {VERSION}"
            )
        try:
            return cls.model_validate_json(text)
        except pydantic.ValidationError as error:
            raise _named(error) from None


def make(**values: Any) -> TransformSpec:
    """``TransformSpec`` of values, with the errors of ``from_json``."""
    try:
        return TransformSpec.model_validate(values, strict=False)
    except pydantic.ValidationError as error:
        raise _named(error) from None


def _named(error: pydantic.ValidationError) -> InvalidSpec:
    found = list(_messages(error))
    if any(e["type"] == "union_tag_invalid" for e in error.errors(include_url=False)):
        return UnknownTransform("; ".join(found))
    return InvalidSpec("; ".join(found))


def _messages(error: pydantic.ValidationError) -> Iterator[str]:
    for each in error.errors(include_url=False, include_input=False)[:8]:
        place = ".".join(str(part) for part in each["loc"])
        context = each.get("ctx", {})
        if each["type"] == "union_tag_invalid":
            yield (
                f"{place}: there is no '{escape(str(context['tag']))}'; there are"
                f" {context['expected_tags']}"
            )
        else:
            yield escape_message(f"{place}: {each['msg'].removeprefix('Value error, ')}")


def escape_message(text: str) -> str:
    """A message that may hold names from a file."""
    return text.encode("unicode_escape").decode("ascii")[:512]


def _check(kinds: dict[str, Kind], name: str, wanted: Sequence[Kind], by: str) -> None:
    if name not in kinds:
        raise ValueError(f"'{by}' reads column '{name}', which is not there")
    if kinds[name] not in wanted:
        raise ValueError(f"'{by}' reads {' or '.join(wanted)}, and '{name}' is {kinds[name]}")
