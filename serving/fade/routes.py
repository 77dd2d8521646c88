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
from crossfade.serving.fade.model import FadeModel, Member
from crossfade.serving.fade.plan import Plan
from crossfade.serving.fade.policy import Finding, Status
from crossfade.serving.fade.recorder import Recorder
from crossfade.serving.fade.records import Fade
from crossfade.serving.lifecycle.detours import Detour
from crossfade.serving.lifecycle.ensembles import members_of
from crossfade.serving.lifecycle.manager import Manager
from crossfade.serving.lifecycle.routing import key_of
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.metrics.statistics import Measured, Statistics
from crossfade.serving.repository import lineage

Detoured = Mapping[ModelRef, Detour | ModelRef]
_OVER: Final = frozenset({Status.ROLLED_BACK, Status.RETIRED})


def without_members(fade: Fade) -> Detoured:
    """What references mean as long as the members are not loaded."""
    target = _target(fade)
    return {ref: target for ref in _asked(fade) if ref != target}


def _target(fade: Fade) -> ModelRef:
    """The member that answers if there is only one."""
    over = fade.position.status in {Status.PROMOTED, Status.RETIRED}
    return members.parse(fade.candidate if over else fade.primary)


def _asked(fade: Fade) -> list[ModelRef]:
    """What clients call."""
    label = fade.plan.label
    return [ModelRef(fade.name), *([ModelRef(fade.name, label=label)] if label else [])]


class Opened:
    """A model that answers for a fade.

    Attributes:
        model: of both members; ``None`` where only one is left.
        adapter: makes requests and answers into the candidate's and back.
    """

    def __init__(
        self, like: Served, model: FadeModel | Member, adapter: Adapter | None = None
    ) -> None:
        statistics = Statistics()
        self.served = Served(Measured(model, statistics), statistics, like.config, like.queue)
        self.model = model if isinstance(model, FadeModel) else None
        self.adapter = adapter

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
        headers = (*form.headers, *second.metadata.headers)
        form = dataclasses.replace(form, headers=headers)
        model = FadeModel(form, manager, (primary, candidate), key_of(plan.key))
        return Opened(first, model, adapter)


def check_lineage(candidate: ModelRef, manager: Manager) -> None:
    """Whether it is known what the candidate, or every member of such an ensemble, was made of.

    Raises:
        Unavailable, NotFound: it cannot answer.
        FailedPrecondition: it has no card, or files that the card was not written for.
    """
    served = manager.lease(candidate)
    with served:
        if served.config.ensemble is not None:
            for member in members_of(served.config.ensemble):
                check_lineage(member.ref, manager)
            return
        try:
            if served.origin is None:
                raise FailedPrecondition("it has no files of its own")
            lineage.check(served.origin.folder)
        except FailedPrecondition as error:
            raise FailedPrecondition(
                f"the plan has require_lineage, but of '{members.written(candidate)}' it is not"
                f" known what it was made of: {error.message}"
            ) from error


def _open_one(fade: Fade, manager: Manager) -> Opened | None:
    """What answers after a fade: none where its member is the model of that name itself."""
    target = _target(fade)
    if target.name == fade.name:
        return None
    served = manager.lease(target)
    with served as model:
        form = dataclasses.replace(model.metadata, name=fade.name)
        return Opened(served, Member(target.name, manager, target, form))


@contextlib.contextmanager
def _both(
    manager: Manager, primary: ModelRef, candidate: ModelRef
) -> Iterator[tuple[Served, Served]]:
    first = manager.lease(primary)
    with first:
        second = manager.lease(candidate)
        with second:
            yield first, second


def _can_answer(ref: ModelRef, manager: Manager) -> bool:
    try:
        return manager.can_answer(ref)
    except CrossfadeError:
        return False


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
        self.waits_for = waits_for
        self._recorders: list[tuple[Fade, Recorder]] = []
        self.detours: Detoured = {}
        self.findings: tuple[Finding, ...] = ()
        self.follow(fade)

    @classmethod
    def of(cls, fade: Fade, manager: Manager) -> Self:
        """Opens the model that the fade needs now; what cannot be is tried again later."""
        pair = members.parse(fade.primary), members.parse(fade.candidate)
        try:
            if fade.position.status in _OVER:
                return cls(fade, _open_one(fade, manager))
            return cls(fade, open_fade(fade.name, *pair, fade.plan, manager))
        except CrossfadeError as error:
            active = cls(fade, None, error.message)
            if fade.position.status is Status.PROMOTED and not _can_answer(pair[1], manager):
                active.detours = dict.fromkeys(_asked(fade), pair[0])
            return active

    @property
    def key(self) -> tuple[int, int]:
        """Of the decision that is followed."""
        return (self.fade.id, self.fade.version)

    def can_follow(self, fade: Fade) -> bool:
        """Whether this model still serves after a later decision."""
        same = fade.id == self.fade.id and fade.position.status not in _OVER
        return same and self._opened is not None

    def follow(self, fade: Fade) -> None:
        """Routes as the fade says now."""
        self.fade = fade
        opened, live = self._opened, fade.position.status.live
        if opened is None:
            self.detours = without_members(fade)
            return
        if opened.model is not None and live:
            self._observe(fade, opened.model)
        elif opened.model is not None:
            opened.model.set(100, 0, None)
        self.detours = dict.fromkeys(_asked(fade), Detour(opened.served, gives_ids=live))

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
        if self._opened is None or self._opened.model is None:
            return {}
        return {name: int(n) for (name,), n in self._opened.model.answered.values().items()}

    def check_retirement(self, force: bool) -> None:
        """Raises FailedPrecondition if clients would notice that the primary is gone.

        Args:
            force: those do not count that sent what only the primary reads.
        """
        if self._opened is None or (adapter := self._opened.adapter) is None:
            return
        candidate = self.fade.candidate
        if adapter.differences:
            raise FailedPrecondition(
                f"'{candidate}' is not called as '{self.fade.primary}' is: "
                f"{'; '.join(adapter.differences)}: the fade translates, so it has to stay; give "
                "the candidate the primary's names, types and label order to retire it"
            )
        seen = self.answered().get("unfit", 0)
        if seen and not force:
            raise FailedPrecondition(
                f"'{candidate}' {' and '.join(adapter.unread)}, and the primary had to answer "
                f"{seen:,} such requests of this server: have those clients send what "
                f"'{candidate}' reads, or retire again with force"
            )

    def close(self) -> None:
        """Has the model closed when its last request is answered."""
        if self._opened is not None:
            self._opened.close()
