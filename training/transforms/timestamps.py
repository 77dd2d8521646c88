"""ISO 8601 texts and numbers since 1970 to the parts of a moment in UTC, in the common operations.

The proleptic Gregorian calendar, years 1 to 9999. Days and dates are counted in eras of 400 years
that begin on the first of March.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Generic

import numpy as np

from crossfade.training.transforms.operations import Operations, V
from crossfade.training.transforms.spec import PERIODS

_CLOCK: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]"
ISO_8601: Final = (
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    rf"([T ]{_CLOCK}(:[0-5][0-9](\.[0-9]{{1,9}})?)?(Z|[+-]{_CLOCK})?)?"
)
_EPOCH: Final = "1970-01-01"
_MONTH_DAYS: Final = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)
_DAY_S: Final = 86_400
# From 0001-01-01 to 9999-12-31T23:59:59, in seconds since 1970.
_FIRST_S: Final = -62_135_596_800.0
_LAST_S: Final = 253_402_300_799.999


class Moments(Generic[V]):
    """Moments of a column.

    Attributes:
        known: whether a row has one.
    """

    def __init__(self, ops: Operations[V], seconds: V, known: V) -> None:
        self._ops = ops
        inside = ops.both(
            ops.compare("less_or_equal", ops.constant(_FIRST_S), seconds),
            ops.compare("less_or_equal", seconds, ops.constant(_LAST_S)),
        )
        self.known = ops.both(known, inside)
        self._seconds = ops.where(self.known, seconds, ops.constant(0.0))
        whole = ops.floor(self._seconds)
        days = ops.floor(ops.binary("div", whole, ops.constant(float(_DAY_S))))
        of_day = ops.binary("sub", whole, ops.binary("mul", days, ops.constant(float(_DAY_S))))
        self._days = ops.cast(days, "int64")
        self._of_day = ops.cast(of_day, "int64")

    def part(self, name: str) -> V:
        """A part as float64; that of 1970 began where the moment is not known."""
        if name == "epoch_days":
            return self._ops.binary("div", self._seconds, self._ops.constant(float(_DAY_S)))
        return self._ops.cast(self._whole(name), "float64")

    def cycle(self, name: str, function: Callable[[float], float]) -> V:
        """Sine or cosine of a part over its period, as float64: read off a table of them."""
        period = PERIODS[name]
        table = np.array([function(2 * math.pi * i / period) for i in range(period)], np.float64)
        place = self._whole(name)
        if name == "month":
            place = self._ops.binary("sub", place, self._ops.constant(1))
        return self._ops.gather(self._ops.constant(table), place)

    def _whole(self, name: str) -> V:
        if name == "weekday":
            return self._modulo(self._plus(self._days, 3), 7)
        if name == "hour":
            return self._over(self._of_day, 3600)
        if name == "minute":
            return self._over(self._modulo(self._of_day, 3600), 60)
        if name == "second":
            return self._modulo(self._of_day, 60)
        return self._date(name)

    def _date(self, name: str) -> V:
        ops = self._ops
        shifted = self._plus(self._days, 719_468)
        era = self._over(shifted, 146_097)
        of_era = ops.binary("sub", shifted, self._times(era, 146_097))
        leaps = ops.binary("sub", of_era, self._over(of_era, 1460))
        leaps = ops.binary("add", leaps, self._over(of_era, 36_524))
        leaps = ops.binary("sub", leaps, self._over(of_era, 146_096))
        year_of_era = self._over(leaps, 365)
        begun = ops.binary("add", self._times(year_of_era, 365), self._over(year_of_era, 4))
        begun = ops.binary("sub", begun, self._over(year_of_era, 100))
        of_year = ops.binary("sub", of_era, begun)
        month_from_march = self._over(self._plus(self._times(of_year, 5), 2), 153)
        if name == "day":
            start = self._over(self._plus(self._times(month_from_march, 153), 2), 5)
            return self._plus(ops.binary("sub", of_year, start), 1)
        after = ops.compare("greater", month_from_march, ops.constant(9))
        month = ops.where(after, self._plus(month_from_march, -9), self._plus(month_from_march, 3))
        if name == "month":
            return month
        year = ops.binary("add", year_of_era, self._times(era, 400))
        return ops.where(after, self._plus(year, 1), year)

    def _plus(self, value: V, number: int) -> V:
        return self._ops.binary("add", value, self._ops.constant(number))

    def _times(self, value: V, number: int) -> V:
        return self._ops.binary("mul", value, self._ops.constant(number))

    def _over(self, value: V, number: int) -> V:
        return self._ops.binary("div", value, self._ops.constant(number))

    def _modulo(self, value: V, number: int) -> V:
        return self._ops.binary("mod", value, self._ops.constant(number))


def of_numbers(ops: Operations[V], numbers: V, unit: str) -> Moments[V]:
    """Moments of seconds, milliseconds or microseconds since 1970, float64 with NaN."""
    scale = {"s": 1.0, "ms": 1e3, "us": 1e6}[unit]
    seconds = ops.binary("div", numbers, ops.constant(scale))
    return Moments(ops, seconds, ops.finite(numbers))


def of_texts(ops: Operations[V], texts: V) -> Moments[V]:
    """Moments of ISO 8601 texts: a date, with ``T`` or a space a time, with an offset or ``Z``.

    Others are not known, and neither is a day that its month does not have.
    """
    matches = ops.full_match(texts, ISO_8601)
    text = ops.where(matches, texts, ops.constant(_EPOCH))
    before = _piece(ops, text, "T", 0)
    date = _piece(ops, before, " ", 0)
    time = ops.concatenate(_piece(ops, before, " ", 1), _piece(ops, text, "T", 1))
    year, month, day = (ops.cast(ops.piece(date, "-", i), "int64") for i in range(3))
    known = ops.both(matches, ops.compare("greater", year, ops.constant(0)))
    known = ops.both(known, ops.compare("less_or_equal", day, _month_length(ops, year, month)))
    plus, minus = _piece(ops, time, "+", 1), _piece(ops, time, "-", 1)
    clock = _piece(ops, _piece(ops, _piece(ops, time, "Z", 0), "+", 0), "-", 0)
    seconds = ops.binary("mul", _days(ops, year, month, day), ops.constant(float(_DAY_S)))
    seconds = ops.binary("add", seconds, _clock(ops, clock))
    seconds = ops.binary("sub", seconds, _clock(ops, plus))
    seconds = ops.binary("add", seconds, _clock(ops, minus))
    return Moments(ops, seconds, known)


def _piece(ops: Operations[V], text: V, delimiter: str, place: int) -> V:
    """The first or second piece; empty where there is no second."""
    return ops.piece(ops.concatenate(text, ops.constant(delimiter)), delimiter, place)


def _clock(ops: Operations[V], text: V) -> V:
    """Seconds of ``H:M``, ``H:M:S`` or an empty text, as float64."""
    padded = ops.concatenate(text, ops.constant("::"))
    total = ops.constant(0.0)
    for place, unit in enumerate((3600.0, 60.0, 1.0)):
        digits = ops.piece(padded, ":", place)
        empty = ops.compare("equal", digits, ops.constant(""))
        number = ops.cast(ops.where(empty, ops.constant("0"), digits), "float64")
        total = ops.binary("add", total, ops.binary("mul", number, ops.constant(unit)))
    return total


def _month_length(ops: Operations[V], year: V, month: V) -> V:
    """Days of a month, int64."""
    length = ops.gather(ops.constant(_MONTH_DAYS), ops.binary("sub", month, ops.constant(1)))

    def divides(number: int) -> V:
        rest = ops.binary("mod", year, ops.constant(number))
        return ops.compare("equal", rest, ops.constant(0))

    century_only = ops.both(divides(100), ops.negate(divides(400)))
    leap = ops.both(divides(4), ops.negate(century_only))
    february = ops.compare("equal", month, ops.constant(2))
    extra = ops.binary("add", length, ops.constant(1))
    return ops.where(ops.both(leap, february), extra, length)


def _days(ops: Operations[V], year: V, month: V, day: V) -> V:
    """Days since 1970 of a date, float64."""

    def op(kind: str, value: V, number: int) -> V:
        return ops.binary(kind, value, ops.constant(number))  # type: ignore[arg-type]  # the names below

    early = ops.compare("less_or_equal", month, ops.constant(2))
    year = ops.where(early, op("sub", year, 1), year)
    from_march = ops.where(early, op("add", month, 9), op("sub", month, 3))
    of_year = op("div", op("add", op("mul", from_march, 153), 2), 5)
    of_year = ops.binary("add", of_year, op("sub", day, 1))
    total = ops.binary("add", op("mul", year, 365), op("div", year, 4))
    total = ops.binary("sub", total, op("div", year, 100))
    total = ops.binary("add", total, op("div", year, 400))
    total = op("sub", ops.binary("add", total, of_year), 719_468)
    return ops.cast(total, "float64")
