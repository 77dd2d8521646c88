"""The ensembles of a server whose weights follow feedback: kept in step with the database."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric

from crossfade.ensemble.adapting import Setup, State
from crossfade.ensemble.adaptive import Following
from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.serving.fade.records import MAX_REQUEST_ID, Outcome

if TYPE_CHECKING:
    from crossfade.serving.fade.adapting_store import Adaptation, AdaptingStore

_log = logging.getLogger(__name__)


class _Followed(Following):
    """With its place in the database, once that is known."""

    adaptation: Adaptation | None = None
    version = 0


class Adaptations:
    """One for a server. Thread-safe."""

    def __init__(self, store: AdaptingStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        # Ensembles hold them; what no ensemble needs any more is forgotten.
        self._followed: weakref.WeakValueDictionary[tuple[str, str], _Followed] = (
            weakref.WeakValueDictionary()
        )

    def open(self, setup: Setup) -> Following:
        """The weights of a setup; without the database the fitted ones, until it is there.

        Raises:
            InvalidArgument: as ``begin``.
        """
        with self._lock:
            key = setup.name, setup.digest
            followed = self._followed.get(key)
            if followed is None:
                followed = self._followed[key] = _Followed(setup)
                try:
                    self._attach(followed)
                except CrossfadeError as error:
                    _log.warning(
                        "weights do not follow yet",
                        extra={"model": setup.name, "reason": error.message},
                    )
            return followed

    def has(self, name: str) -> bool:
        """Whether an ensemble of this name follows feedback here."""
        return any(one.setup.name == name for one in self.followed())

    def followed(self) -> list[Following]:
        """What ensembles hold now; of one version the newest."""
        with self._lock:
            found = {(one.setup.name, one.setup.version): one for one in self._followed.values()}
        return list(found.values())

    def truths(self, name: str, truths: Mapping[str, str]) -> dict[str, Outcome]:
        """See ``AdaptingStore.truths``."""
        return self._store.truths(name, truths, time.time())

    def tick(self) -> None:
        """Keeps what was claimed, and follows what all servers learned; raises Unavailable."""
        with self._lock:
            followed = list(self._followed.values())
            for one in followed:
                if one.adaptation is None:
                    self._attach(one)
        for one in followed:
            self._keep(one)
        ids = {one.adaptation.id: one for one in followed if one.adaptation is not None}
        if not ids:
            return
        for id_, (version, state) in self._store.states(list(ids)).items():
            if version != ids[id_].version:
                _follow(ids[id_], version, state)

    def _attach(self, one: _Followed) -> None:
        adaptation = self._store.open(one.setup, time.time())
        one.adaptation = adaptation
        _follow(one, adaptation.version, adaptation.state)

    def _keep(self, one: _Followed) -> None:
        claims = one.take()
        good = {key: text for key, text in claims.items() if _is_id(key)}
        if not good or one.adaptation is None:
            return
        try:
            self._store.claimed(one.adaptation, good, time.time())
        except CrossfadeError:
            one.put_back(good)
            raise


def _follow(one: _Followed, version: int, state: State) -> None:
    was = one.state
    one.state, one.version = state, version
    if was.frozen == state.frozen:
        return
    names = one.setup.members
    weights = {name: round(w, 4) for name, w in zip(names, state.weights, strict=True)}
    extra = {"model": one.setup.name, "version": one.setup.version, "weights": weights}
    if state.frozen:
        _log.warning("weights frozen: the ensemble's log-loss got worse", extra=extra)
    else:
        _log.info("weights follow feedback again", extra=extra)


def collect(followed: Iterable[Following]) -> Iterator[Metric]:
    """The weights, and whether they are frozen."""
    found = list(followed)
    if not found:
        return
    labels = ["model", "version"]
    weight = GaugeMetricFamily(
        "crossfade_ensemble_weight",
        "Weight of a member that follows feedback",
        labels=[*labels, "member"],
    )
    frozen = GaugeMetricFamily(
        "crossfade_adapt_frozen",
        "1 where the log-loss got worse and the weights wait for an operator",
        labels=labels,
    )
    for one in found:
        model = [one.setup.name, str(one.setup.version)]
        state = one.state
        frozen.add_metric(model, float(state.frozen))
        for member, value in zip(one.setup.members, state.weights, strict=True):
            weight.add_metric([*model, member], value)
    yield from (weight, frozen)


def _is_id(text: str) -> bool:
    """Whether the database can keep it."""
    return 0 < len(text) <= MAX_REQUEST_ID and "\0" not in text
