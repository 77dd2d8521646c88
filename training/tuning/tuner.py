"""The same few calls for every service that suggests values: Optuna here, Vizier over its wire."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.extras import require
from crossfade.training.tuning.space import Number, Space, Value, Values
from crossfade.training.tuning.transfer import Belief, Finished, Suggester, portfolio


@dataclasses.dataclass(frozen=True, slots=True)
class Suggestion:
    """Values to try, and the service's name for the trial."""

    id: str
    values: Mapping[str, Value]


class Tuner(Protocol):
    """A search. Smaller losses are better."""

    def add(self, trial: Finished) -> None:
        """Tells it a trial of this task that was run elsewhere."""
        ...

    def suggest(self) -> Suggestion:
        """Asks for the next values."""
        ...

    def complete(self, suggestion: Suggestion, loss: float | None) -> None:
        """Tells it how they did; ``None`` or what is not finite is a trial that failed."""
        ...

    def finished(self) -> list[Finished]:
        """All trials with a loss."""
        ...


def search(tuner: Tuner, objective: Callable[[Values], float], trials: int) -> Finished:
    """Runs ``trials`` more trials; returns the best of all.

    Raises:
        InvalidArgument: every trial failed.
    """
    for _ in range(trials):
        suggestion = tuner.suggest()
        tuner.complete(suggestion, objective(suggestion.values))
    done = tuner.finished()
    if not done:
        raise InvalidArgument("no trial came to a finite loss")
    return min(done, key=lambda trial: trial.loss)


class OptunaTuner:
    """The embedded one: Optuna keeps the trials, ``Suggester`` chooses the values.

    The best values of earlier tasks are enqueued and tried first. With a ``storage`` the search
    goes on after a restart, and several processes may share it.
    """

    def __init__(
        self,
        space: Space,
        *,
        sources: Sequence[Sequence[Finished]] = (),
        portfolio_size: int = 3,
        belief: Belief | None = None,
        seed: int = 0,
        name: str = "crossfade",
        storage: str | None = None,
    ) -> None:
        """Opens the study, or begins it.

        Args:
            space: what is searched.
            sources: finished trials of earlier tasks.
            portfolio_size: of their best values, how many are tried first.
            belief: where else to look first.
            seed: of all that is drawn.
            name: of the study.
            storage: SQLAlchemy's URL; ``None`` keeps it in memory.
        """
        self._optuna = require("optuna", "training", "tuning")
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self._space = space
        self._sources = sources
        self.suggester = Suggester(space, sources, seed=seed, belief=belief)
        self._distributions = {
            name: self._distribution(parameter) for name, parameter in space.parameters.items()
        }
        self._study = self._optuna.create_study(
            study_name=name,
            storage=storage,
            load_if_exists=True,
            sampler=_sampler(self._optuna, self._distributions, self._next),
        )
        if not self._study.get_trials(deepcopy=False):
            for values in portfolio(space, sources, portfolio_size):
                self._study.enqueue_trial(values)
        self._asked: dict[str, Any] = {}

    def add(self, trial: Finished) -> None:
        """See ``Tuner``."""
        made = self._optuna.trial.create_trial(
            params=self._space.from_unit(self._space.to_unit(trial.values)),
            distributions=self._distributions,
            value=trial.loss,
        )
        self._study.add_trial(made)

    def suggest(self) -> Suggestion:
        """See ``Tuner``."""
        asked = self._study.ask(self._distributions)
        identity = str(asked.number)
        self._asked[identity] = asked
        return Suggestion(identity, dict(asked.params))

    def complete(self, suggestion: Suggestion, loss: float | None) -> None:
        """See ``Tuner``."""
        asked = self._asked.pop(suggestion.id)
        if loss is None or not math.isfinite(loss):
            self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(asked, loss)

    def finished(self) -> list[Finished]:
        """See ``Tuner``."""
        state = self._optuna.trial.TrialState.COMPLETE
        trials = self._study.get_trials(deepcopy=False, states=(state,))
        return [Finished(trial.params, trial.value) for trial in trials]

    def _next(self) -> Mapping[str, Value]:
        return self.suggester.suggest(self.finished())

    def _distribution(self, parameter: Any) -> Any:
        kinds = self._optuna.distributions
        if not isinstance(parameter, Number):
            return kinds.CategoricalDistribution(parameter.options)
        if parameter.integer:
            low, high = math.ceil(parameter.low), math.floor(parameter.high)
            return kinds.IntDistribution(low, high, log=parameter.log)
        return kinds.FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _sampler(
    optuna: Any, distributions: Mapping[str, Any], choose: Callable[[], Mapping[str, Value]]
) -> Any:
    """A sampler of Optuna's that asks ``choose``; made here, as Optuna is imported when needed."""

    class Transfer(optuna.samplers.BaseSampler):  # type: ignore[misc]
        def infer_relative_search_space(self, study: Any, trial: Any) -> Mapping[str, Any]:
            return distributions

        def sample_relative(self, study: Any, trial: Any, space: Any) -> Mapping[str, Value]:
            # Optuna takes the values that were enqueued, and would have these for nothing.
            return {} if "fixed_params" in trial.system_attrs else choose()

        def sample_independent(self, study: Any, trial: Any, name: str, kind: Any) -> Any:
            fallback = optuna.samplers.RandomSampler()
            return fallback.sample_independent(study, trial, name, kind)

    return Transfer()
