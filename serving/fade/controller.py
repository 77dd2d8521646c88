"""Runs the fades of a server: routes by them, publishes evidence, decides, and keeps feedback.

Several servers may share one database. Each publishes what it saw, each may decide, and the first
decision counts: the others find the fade changed and follow. What routes is always what the
database said last; while it cannot be reached, requests go where they went before.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    InvalidArgument,
    NotFound,
    Unavailable,
    escape,
)
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.fade import documents, members
from crossfade.serving.fade.adaptations import Adaptations
from crossfade.serving.fade.database import FadeDatabase
from crossfade.serving.fade.plan import parse
from crossfade.serving.fade.policy import Action, Status, decide
from crossfade.serving.fade.records import Fade, Outcome, Superseded
from crossfade.serving.fade.routes import Active, check_lineage, open_fade, without_members
from crossfade.serving.lifecycle.detours import Detour, Detours
from crossfade.serving.lifecycle.manager import Manager
from crossfade.serving.repository.layout import check_name

_log = logging.getLogger(__name__)
TICK_S: Final = 0.5
MAX_TRUTHS: Final = 5_000  # of one call; JSON may not have more
_TRIES: Final = 5  # of an operator's action, while replicas decide
_JOIN_S: Final = 5.0


class FadeController:
    """One for a server. Thread-safe; its own thread runs from ``start`` to ``close``.

    Args:
        database: that the fades are in; closed by ``close``.
        manager: has the members.
        route: is told what references mean from now on.
        adaptations: ensembles whose weights follow the same feedback.
    """

    def __init__(
        self,
        database: FadeDatabase,
        manager: Manager,
        route: Callable[[Detours], None],
        adaptations: Adaptations | None = None,
    ) -> None:
        self._database = database
        self._manager = manager
        self._route = route
        self._adaptations = adaptations
        self._replica = uuid.uuid4().hex
        self._turn = threading.RLock()  # held while fades are read, changed and routed by
        self._active: dict[str, Active] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._routed: Detours = {}
        self._troubled = False

    def prepare(self) -> None:
        """Has requests go to the right member before any model is loaded.

        Raises:
            Unavailable: the database cannot be reached.
        """
        for fade in self._database.fades.newest():
            self._routed = {**self._routed, **without_members(fade)}
        self._route(self._routed)

    def start(self) -> None:
        """Takes up the fades where they are, once the models are there, and follows them."""
        self._tick()
        self._thread = threading.Thread(target=self._run, name="fades", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Publishes what was seen, and ends. Once, when no requests come any more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
            with self._turn:
                try:
                    self._publish()
                    if self._adaptations is not None:
                        self._adaptations.tick()
                except CrossfadeError as error:
                    _log.warning("the last evidence was not kept", extra={"reason": error.message})
                for active in self._active.values():
                    active.close()
        self._database.close()

    # -- what operators ask ------------------------------------------------------------------------

    def begin(self, name: str, primary: str, candidate: str, plan: str, actor: str) -> Any:
        """Starts a fade; returns its status.

        Args:
            name: under which clients call; need not be a model's.
            primary: answers now; see ``members.read``.
            candidate: is to answer.
            plan: the text of ``fade.yaml``.
            actor: who asks.

        Raises:
            InvalidArgument: the plan or a name is wrong.
            NotFound: there is no such member.
            FailedPrecondition: the candidate cannot stand in for the primary, with all reasons.
            AlreadyExists: a fade of this name is going on.
            Unavailable: a member cannot answer now, or the database.
        """
        check_name(name)
        steps = parse(plan, "the plan")
        first, second = (members.read(text, name, self._manager) for text in (primary, candidate))
        texts = members.written(first), members.written(second)
        if steps.require_lineage:
            check_lineage(second, self._manager)
        with self._turn:
            open_fade(name, first, second, steps, self._manager).close()
            now_s = time.time()
            self._database.fades.start(name, *texts, steps, now_s=now_s, actor=actor)
            self._follow()
        return self.status(name)

    def act(self, name: str, action: str, reason: str, actor: str, force: bool = False) -> Any:
        """Does what an operator asks; returns the status after it.

        Args:
            name: of the fade.
            action: see ``policy``.
            reason: for the record.
            actor: who asks.
            force: retire although requests were seen that only the primary reads.

        Raises:
            NotFound: there is no fade of this name.
            InvalidArgument: there is no such action, or the reason is too long.
            FailedPrecondition: the fade's state does not allow it; or after ``retire`` clients
                would notice.
        """
        if action not in _ACTIONS:
            raise InvalidArgument(f"an action is one of {', '.join(_ACTIONS)}")
        if len(reason) > 1024 or "\0" in reason:
            raise InvalidArgument("a reason has at most 1024 characters, none of them NUL")
        wanted = _ACTIONS[action]
        with self._turn:
            for left in reversed(range(_TRIES)):
                fade = self._get(name)
                self._check_members(fade, wanted, force)
                try:
                    self._publish()
                    self._database.fades.act(
                        fade, wanted, reason or "asked for", now_s=time.time(), actor=actor
                    )
                    break
                except Superseded:
                    if not left:
                        raise
            self._follow()
        return self.status(name)

    def status(self, name: str) -> Any:
        """Where a fade stands; raises NotFound, Unavailable."""
        fade, fades, now_s = self._get(name), self._database.fades, time.time()
        evidence = fades.evidence(fade)
        decision = decide(fade.plan, fade.position, evidence, now_s)
        document = documents.status(fade, evidence, decision, fades.records(fade)[-1], now_s)
        active = self._active.get(name)
        document["answered"] = active.answered() if active else {}
        if active is None or active.key != (fade.id, fade.version):
            document["missing"].insert(0, "this server has not yet followed the last decision")
        elif active.waits_for:
            document["missing"].insert(0, active.waits_for)
        return document

    def all(self) -> Any:
        """The newest fade of each name, in one line each."""
        return [documents.summary(fade) for fade in self._database.fades.newest()]

    def history(self, name: str) -> Any:
        """All decisions of the newest fade of a name; raises NotFound, Unavailable."""
        fade = self._get(name)
        return documents.history(fade, self._database.fades.records(fade))

    # -- ground truth ------------------------------------------------------------------------------

    def truths(self, name: str, truths: Mapping[str, str]) -> Mapping[str, Outcome]:
        """Takes what would have been right, by request id; see ``Feedback.truths``.

        Raises:
            NotFound: there is no fade of this name, and no ensemble that adapts.
            InvalidArgument: too many at once, or as ``Feedback.truths``.
        """
        if not truths:
            raise InvalidArgument("the request holds no truth")
        if len(truths) > MAX_TRUTHS:
            raise InvalidArgument(f"one call takes at most {MAX_TRUTHS} truths: send several")
        learned: dict[str, Outcome] = {}
        if self._adaptations is not None and self._adaptations.has(name):
            learned = self._adaptations.truths(name, truths)
            if name not in self._active:
                return learned
        if name not in self._active:
            self._get(name)
        outcomes = self._database.feedback.truths(name, truths, time.time())
        return outcomes | {key: one for key, one in learned.items() if one == "joined"}

    def active(self) -> list[Active]:
        """The fades that this server routes by, for metrics."""
        return list(self._active.values())

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(TICK_S):
            self._tick()

    def _tick(self) -> None:
        try:
            with self._turn:
                self._follow()
                self._publish()
                self._decide()
            if self._adaptations is not None:
                self._adaptations.tick()
            self._troubled = False
        except CrossfadeError as error:
            if not self._troubled:
                _log.warning("fades cannot be followed now", extra={"reason": error.message})
            self._troubled = True
        except Exception:
            _log.exception("fades cannot be followed now")

    def _follow(self) -> None:
        """Routes as the database says."""
        stale: list[Active] = []
        for fade in self._database.fades.newest():
            active = self._active.get(fade.name)
            known = active.key if active else None
            if active and known == (fade.id, fade.version) and not active.waits_for:
                continue
            if active and active.can_follow(fade):
                active.follow(fade)
            else:
                stale += [active] if active else []
                active = self._active[fade.name] = Active.of(fade, self._manager)
            if known != active.key:
                line = documents.summary(fade)
                line["fade"] = line.pop("name")  # logging has a name of its own
                _log.info("fade", extra={**line, "waits_for": active.waits_for})
        detours: dict[ModelRef, Detour | ModelRef] = {}
        for active in self._active.values():
            detours |= active.detours
        if detours != self._routed:
            self._routed = detours
            self._route(detours)
        for old in stale:
            old.close()

    def _publish(self) -> None:
        for active in self._active.values():
            for fade, recorder in active.recorders():
                if predictions := recorder.predictions():
                    try:
                        self._database.feedback.predicted(fade, predictions, time.time())
                    except CrossfadeError:
                        recorder.put_back(predictions)
                        raise
                if (evidence := recorder.changed()) is None:
                    continue
                try:
                    self._database.fades.publish(fade, self._replica, evidence)
                except CrossfadeError:
                    recorder.unchanged()
                    raise

    def _decide(self) -> None:
        for active in list(self._active.values()):
            if active.fade.position.status.live and not active.waits_for:
                try:
                    _, decision = self._database.fades.decide(active.fade, time.time())
                except Superseded:
                    continue  # another replica was first; the next look shows what it decided
                active.findings = decision.findings
                if decision.action != "stay":
                    self._follow()

    # -- helpers -----------------------------------------------------------------------------------

    def _get(self, name: str) -> Fade:
        try:
            return self._database.fades.get(check_name(name))
        except NotFound:
            raise NotFound(
                f"there is no fade of '{escape(name)}': `crossfade fade start` begins one"
            ) from None

    def _check_members(self, fade: Fade, action: Action, force: bool) -> None:
        """Refuses what would leave clients without the answers that they know."""
        if action not in {"promote", "retire"}:
            return
        active = self._active.get(fade.name)
        if active is None or active.waits_for:
            raise Unavailable(
                active.waits_for if active else "this server does not follow the fade yet",
                retry_after_s=1,
            )
        if action == "retire" and fade.position.status is Status.PROMOTED:
            active.check_retirement(force)


_ACTIONS: Final[Mapping[str, Action]] = {
    "pause": "pause",
    "resume": "resume",
    "promote": "promote",
    "rollback": "roll_back",
    "retire": "retire",
}
