"""Which weights of an export a module carries; one that is left behind must be allowed to be."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.training.weights.inventory import Inventory

# What a checkpoint has besides the weights of a model, and why it may stay behind.
ALLOWED: Final = {
    r"(^|/)save_counter(/|$)": "counts checkpoints",
    r"(^|/)(_?optimizer|optimizer_slots|\.OPTIMIZER_SLOT)(/|$)": "an optimiser's state",
    r"(^|/)(global_step|iterations)(/|$)": "counts steps",
    r"(^|/)adapt_(mean|variance)(/|$)": "Keras' Normalization: its graph has them as constants",
}
_SEEDS: Final = frozenset({"uint32", "int64", "uint64", "int32"})


@dataclasses.dataclass(frozen=True, slots=True)
class Coverage:
    """Attributes: names of weights; ``allowed`` also says why."""

    carried: tuple[str, ...]
    allowed: dict[str, str]
    missing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Nothing is left behind that was not allowed to be."""
        return not self.missing

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a report."""
        total = len(self.carried) + len(self.missing)
        return {
            "weights": total,
            "carried": len(self.carried),
            "fraction": len(self.carried) / total if total else 1.0,
            "allowed": self.allowed,
            "missing": list(self.missing),
        }


def coverage(found: Inventory, carried: Collection[str], allow: Sequence[str] = ()) -> Coverage:
    """Compares an export's weights with those that were carried over.

    Args:
        found: the export's weights.
        carried: names of those that the module has.
        allow: regular expressions of names that may stay behind, besides ``ALLOWED`` and whole
            numbers that the signature does not read (states of random generators).
    """
    reasons = ALLOWED | dict.fromkeys(allow, "allowed by the caller")
    names = {w.name: f"{w.name} ({w.role.value}, {_shape(w.value.shape)})" for w in found.weights}
    kept = tuple(name for name in names if name in carried)
    allowed: dict[str, str] = {}
    missing: list[str] = []
    for name, shown in names.items():
        if name not in carried:
            _sort(name, shown, reasons, allowed, missing)
    for name, stored in found.unread.items():
        if stored.dtype in _SEEDS:
            allowed[name] = f"{stored.dtype}, not read by the signature"
        else:
            shown = f"{name} ({stored.dtype}, {_shape(stored.shape)}, not read by the signature)"
            _sort(name, shown, reasons, allowed, missing)
    return Coverage(kept, allowed, tuple(missing))


def require_complete(found: Coverage) -> None:
    """Raises FailedPrecondition with every weight that was left behind."""
    if not found.complete:
        raise FailedPrecondition(
            f"{len(found.missing)} weights would be left behind; allow them by name, or leave"
            " the export as it is:\n  - " + "\n  - ".join(found.missing)
        )


def _sort(
    name: str, shown: str, reasons: dict[str, str], allowed: dict[str, str], missing: list[str]
) -> None:
    reason = next((why for rule, why in reasons.items() if re.search(rule, name)), None)
    if reason is None:
        missing.append(shown)
    else:
        allowed[name] = reason


def _shape(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes)) or "scalar"
