"""What references mean while a fade is there, and the model that answers them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Final, Self

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    FailedPrecondition,
    InvalidArgument,
)
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.fade import members
from crossfade.serving.fade.form import Adapter
from crossfade.serving.fade.model import FadeModel
from crossfade.serving.fade.plan import Plan
from crossfade.serving.fade.policy import Finding, Status
from crossfade.serving.fade.recorder import Recorder
from crossfade.serving.fade.records import Fade
from crossfade.serving.lifecycle.detours import Detour
from crossfade.serving.lifecycle.manager import Manager
from crossfade.serving.lifecycle.routing import key_of
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.metrics.statistics import Measured, Statistics

Detoured = Mapping[ModelRef, Detour | ModelRef]
_OVER: Final = frozenset({Status.ROLLED_BACK, Status.RETIRED})


def without_members(fade: Fade) -> Detoured:
    """What references mean as long as the members are not loaded."""
    return _plain(fade, fade.position.status)


def _plain(fade: Fade, status: Status) -> dict[ModelRef, Detour | ModelRef]:
    over = status in {Status.PROMOTED, Status.RETIRED}
    target = members.parse(fade.candidate if over else fade.primary)
    return {ref: target for ref in _asked(fade) if ref != target}


def _asked(fade: Fade) -> list[ModelRef]:
    """What clients call."""
    label = fade.plan.label
    return [ModelRef(fade.name), *([ModelRef(fade.name, label=label)] if label else [])]


class Opened:
    """The model of a fade, ready to answer."""

    def __init__(self, served: Served, model: FadeModel, is_identity: bool) -> None:
        self.served = served
        self.model = model
        self.is_identity = is_identity

    def close(self) -> None:
        """Has the model closed when its last request is answered."""
        self.served.retire()


def open_fade(
    name: str, primary: ModelRef, candidate: ModelRef, plan: Plan, manager: Manager
) -> Opened:
    """Makes the model of a fade, whose form is the primary's.

    Raises:
        Unavailable, NotFound: a member cannot answer.
        InvalidArgument: both are the same version.
        FailedPrecondition: the candidate cannot stand in, with all reasons.
    """
    with _both(manager, primary, candidate) as (first, second):
        for served, ref in ((first, primary), (second, candidate)):
            if served.streaming is not None or served.config.sequence is not None:
                raise FailedPrecondition(
                    f"'{members.written(ref)}' keeps state or streams: only models whose requests "
                    "stand alone can be faded"
                )
        if first is second:
            raise InvalidArgument(
                f"'{members.written(primary)}' and '{members.written(candidate)}' are the same "
                "version now"
            )
        form = dataclasses.replace(first.metadata, name=name)
        adapter = Adapter(form, second.metadata)
        model = FadeModel(form, manager, (primary, candidate), key_of(plan.key))
        statistics = Statistics()
        served = Served(Measured(model, statistics), statistics, first.config, first.queue)
        return Opened(served, model, adapter.is_identity)


@contextlib.contextmanager
def _both(
    manager: Manager, primary: ModelRef, candidate: ModelRef
) -> Iterator[tuple[Served, Served]]:
    first = manager.lease(primary)
    with first:
        second = manager.lease(candidate)
        with second:
            yield first, second


class Active:
    """A fade as this server follows it. The controller's lock guards what changes.

    Attributes:
        fade: as it was read last.
        detours: what references mean.
        waits_for: why its members cannot be asked as they should; empty if they can.
        findings: of the last look.
    """

    def __init__(self, fade: Fade, opened: Opened | None, waits_for: str = "") -> None:
        self._opened = opened
        self._closing: Opened | None = None
        self.waits_for = waits_for
        self._recorders: list[tuple[Fade, Recorder]] = []
        self.detours: Detoured = {}
        self.findings: tuple[Finding, ...] = ()
        self.follow(fade)

    @classmethod
    def of(cls, fade: Fade, manager: Manager) -> Self:
        """Opens the model that the fade needs now; what cannot be is tried again later."""
        if fade.position.status in _OVER:
            return cls(fade, None)
        pair = members.parse(fade.primary), members.parse(fade.candidate)
        try:
            return cls(fade, open_fade(fade.name, *pair, fade.plan, manager))
        except CrossfadeError as error:
            return cls(fade, None, error.message)

    @property
    def key(self) -> tuple[int, int]:
        """Of the decision that is followed."""
        return (self.fade.id, self.fade.version)

    def can_follow(self, fade: Fade) -> bool:
        """Whether this model still serves after a later decision."""
        return fade.id == self.fade.id and (
            self._opened is not None or fade.position.status in _OVER
        )

    def follow(self, fade: Fade) -> None:
        """Routes as the fade says now."""
        self.fade = fade
        status, opened = fade.position.status, self._opened
        if status in _OVER:
            self._closing, self._opened, self.waits_for = opened, None, ""
        if opened is None or status in _OVER:
            self.detours = _plain(fade, status)
            return
        if status.live:
            self._observe(fade, opened.model)
        else:
            opened.model.set(100, 0, None)
        detour = Detour(opened.served, gives_ids=status.live)
        self.detours = dict.fromkeys(_asked(fade), detour)

    def _observe(self, fade: Fade, model: FadeModel) -> None:
        step = fade.plan.steps[fade.position.step]
        last = self._recorders[-1:]
        if last and last[0][0].position.step == fade.position.step:
            self._recorders[-1] = (fade, last[0][1])
        else:
            self._recorders = [*last, (fade, Recorder(mirrored=step.mirrored))]
        model.set(step.traffic_percent, step.mirror_percent, self._recorders[-1][1])

    def recorders(self) -> list[tuple[Fade, Recorder]]:
        """What was observed, and the fade as it was then: of the last step, and of this one."""
        return self._recorders

    def answered(self) -> dict[str, int]:
        """Requests of this server by who answered; see ``FadeModel``."""
        if self._opened is None:
            return {}
        return {name: int(n) for (name,), n in self._opened.model.answered.values().items()}

    def check_retirement(self) -> None:
        """Raises FailedPrecondition if clients would notice that the primary is gone."""
        if self._opened is not None and not self._opened.is_identity:
            raise FailedPrecondition(
                f"'{self.fade.candidate}' has other names, labels or types than "
                f"'{self.fade.primary}', whose form clients know: the fade translates, so it has "
                "to stay; give the candidate the primary's names and label order to retire it"
            )

    def close_stale(self) -> None:
        """Has the model that is no longer routed to closed when its last request is answered."""
        if self._closing is not None:
            self._closing.close()
            self._closing = None

    def close(self) -> None:
        """The same for the model that is."""
        self._closing, self._opened = self._opened or self._closing, None
        self.close_stale()
