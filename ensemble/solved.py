"""A solved gate as a file beside a cascade's configuration."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Self

from crossfade.ensemble.gate import GateReport
from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument


@dataclasses.dataclass(frozen=True, slots=True)
class SolvedGate:
    """What was solved, and for which stages.

    Attributes:
        temperatures: by the stages' names, those that the confidences were calibrated with; they
            count instead of the configuration's. Empty where those were used.
    """

    report: GateReport
    temperatures: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """The report's JSON object, with ``temperatures``."""
        plain = json.loads(self.report.to_json())
        return json.dumps({**plain, "temperatures": dict(self.temperatures)})

    @classmethod
    def from_json(cls, text: str, stages: Sequence[str]) -> Self:
        """Reads a ``GateReport`` as JSON, which may also have ``temperatures``.

        Args:
            text: the JSON.
            stages: names of the cascade's stages, which the report must be of.

        Raises:
            InvalidArgument: it is no such report.
            FailedPrecondition: it is of other stages.
        """
        try:
            read = json.loads(text)
            given = read.pop("temperatures", {}) if isinstance(read, dict) else {}
            temperatures = {str(name): float(value) for name, value in given.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidArgument("this is not a report of a gate") from error
        report = GateReport.from_json(json.dumps(read))
        if any(not (math.isfinite(each) and each > 0) for each in temperatures.values()):
            raise InvalidArgument("a temperature is a positive number")
        if len(report.reach) != len(stages):
            raise FailedPrecondition(
                f"it is for {len(report.reach)} stages; the cascade has {len(stages)}"
            )
        if temperatures and sorted(temperatures) != sorted(stages):
            raise FailedPrecondition(
                f"it is for the stages {sorted(temperatures)}, not {sorted(stages)}; solve it anew"
            )
        return cls(report, temperatures)
