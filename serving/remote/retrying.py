"""Whether a failed call is tried again, and when. Pure."""

from __future__ import annotations

import dataclasses
from typing import Final

_FIRST_S: Final = 0.05
_MOST_S: Final = 2.0
# Of all calls together: a success earns a tenth of a retry, so that a server which fails all the
# time gets a tenth more calls, and not three times as many.
_EARNED: Final = 0.1
_SAVED: Final = 10.0


def pause_s(attempt: int, chance: float) -> float:
    """How long to wait after the failed attempt number ``attempt`` (the first one is 0).

    Args:
        attempt: how many have failed before this one.
        chance: uniform in [0, 1): between half and all of a time that doubles, up to two seconds.
    """
    whole: float = min(_MOST_S, _FIRST_S * 2 ** min(attempt, 16))
    return whole * (0.5 + chance / 2)


@dataclasses.dataclass(slots=True)
class Budget:
    """Retries that all calls to one server may make together. Guarded by whoever holds it."""

    tokens: float = _SAVED

    def succeeded(self) -> None:
        """Earns a part of a retry."""
        self.tokens = min(_SAVED, self.tokens + _EARNED)

    def take(self) -> bool:
        """Spends a retry; False if there is none left."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
