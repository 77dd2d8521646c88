"""A search that Vizier runs: Vertex AI's service or the open-source server."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import grpc

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from crossfade.training.tuning.space import Number, Space, Value
from crossfade.training.tuning.transfer import Finished, portfolio
from crossfade.training.tuning.tuner import Suggestion
from crossfade.training.tuning.vizier.messages import Dialect, messages

_METRIC: Final = "loss"
_CLIENT: Final = "crossfade"
_PAGE: Final = 100
_CALL_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.2
_SLOWEST_POLL_S: Final = 5.0
_ERRORS: Final[Mapping[Any, type[CrossfadeError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
}


class VizierTuner:
    """See ``Tuner``; the service chooses the values.

    Both dialects have ``CreateTrial`` and ``CompleteTrial``, which is how prior trials get in;
    ``transfer_learning_config`` is in Vertex AI's v1beta1 alone, and not used.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        parent: str,
        space: Space,
        *,
        name: str,
        dialect: Dialect = "vertex",
        sources: Sequence[Sequence[Finished]] = (),
        portfolio_size: int = 3,
        algorithm: str | int | None = None,
        suggestion_timeout_s: float = 300.0,
    ) -> None:
        """Opens the study of that name, or begins it.

        Args:
            channel: to the service, with credentials where it wants them.
            parent: ``projects/P/locations/L`` of Vertex AI, ``owners/O`` of the open-source one.
            space: what is searched.
            name: of the study, as it is displayed.
            dialect: whose messages.
            sources: finished trials of earlier tasks; their best values are tried first.
            portfolio_size: how many of these.
            algorithm: a number of Vertex AI's enum, a name of the open-source server's; its
                default otherwise.
            suggestion_timeout_s: how long a suggestion may take.

        Raises:
            CrossfadeError: the service refused, or cannot be reached.
            FailedPrecondition: there is a study of that name with another space.
        """
        self._messages = messages(dialect)
        self._dialect = dialect
        self._channel = channel
        self._space = space
        self._timeout_s = suggestion_timeout_s
        wanted = self._study(name, algorithm)
        # The open-source server's CreateStudy gives the study of that name, if there is one.
        found = self._find(parent, name) if dialect == "vertex" else None
        if found is None:
            request = self._new("CreateStudyRequest", parent=parent, study=wanted)
            found = self._call("CreateStudy", request, "Study")
        if list(found.study_spec.parameters) != list(wanted.study_spec.parameters):
            raise FailedPrecondition(
                f"the study '{name}' searches other parameters: give this search another name"
            )
        self.study: str = found.name
        self._first = portfolio(space, sources, portfolio_size) if not self._trials() else []

    def add(self, trial: Finished) -> None:
        """See ``Tuner``.

        Vertex AI's is created and completed; the open-source server completes no trial that it
        did not hand out, and takes one that is complete.
        """
        if self._dialect == "vertex":
            self.complete(self._create(trial.values), trial.loss)
        else:
            self._create(trial.values, trial.loss)

    def suggest(self) -> Suggestion:
        """See ``Tuner``.

        Raises:
            DeadlineExceeded: the service took longer than it may.
            CrossfadeError: the service refused.
        """
        if self._first:
            created = self._create(self._first.pop(0))
            if self._dialect == "vertex":
                return created  # the open-source server hands it out below
        request = self._new(
            "SuggestTrialsRequest", parent=self.study, suggestion_count=1, client_id=_CLIENT
        )
        operation = self._call("SuggestTrials", request, "Operation")
        until, wait_s = time.monotonic() + self._timeout_s, _POLL_S
        while not operation.done:
            if time.monotonic() > until:
                raise DeadlineExceeded(f"Vizier gave no suggestion in {self._timeout_s:g} s")
            time.sleep(wait_s)
            wait_s = min(wait_s * 1.5, _SLOWEST_POLL_S)
            request = self._new("GetOperationRequest", name=operation.name)
            operation = self._call("GetOperation", request, "Operation")
        if operation.HasField("error") and operation.error.code:
            raise FailedPrecondition(f"Vizier gave no suggestion: {operation.error.message[:300]}")
        response = self._messages.of("SuggestTrialsResponse")()
        response.ParseFromString(operation.response.value)
        if not response.trials:
            raise FailedPrecondition("Vizier gave no suggestion: the study is complete")
        return self._suggestion(response.trials[0])

    def complete(self, suggestion: Suggestion, loss: float | None) -> None:
        """See ``Tuner``."""
        request = self._new("CompleteTrialRequest", name=suggestion.id)
        if loss is None or not math.isfinite(loss):
            request.trial_infeasible = True
            request.infeasible_reason = "the loss is not finite"
        else:
            request.final_measurement.step_count = 1
            request.final_measurement.metrics.add(metric_id=_METRIC, value=loss)
        self._call("CompleteTrial", request, "Trial")

    def finished(self) -> list[Finished]:
        """See ``Tuner``."""
        done = self._messages.value("Trial.State.SUCCEEDED")
        found = []
        for trial in self._trials():
            losses = [m.value for m in trial.final_measurement.metrics if m.metric_id == _METRIC]
            if trial.state == done and losses:
                found.append(Finished(self._suggestion(trial).values, losses[0]))
        return found

    def _study(self, name: str, algorithm: str | int | None) -> Any:
        study = self._new("Study", display_name=name)
        minimise = self._messages.value("StudySpec.MetricSpec.GoalType.MINIMIZE")
        study.study_spec.metrics.add(metric_id=_METRIC, goal=minimise)
        if algorithm is not None:
            study.study_spec.algorithm = algorithm
        elif self._dialect == "oss":
            study.study_spec.algorithm = "DEFAULT"
        scales = "StudySpec.ParameterSpec.ScaleType"
        for key, parameter in self._space.parameters.items():
            spec = study.study_spec.parameters.add(parameter_id=key)
            if not isinstance(parameter, Number):
                spec.categorical_value_spec.values.extend(parameter.options)
                continue
            scale = "UNIT_LOG_SCALE" if parameter.log else "UNIT_LINEAR_SCALE"
            spec.scale_type = self._messages.value(f"{scales}.{scale}")
            if parameter.integer:
                spec.integer_value_spec.min_value = math.ceil(parameter.low)
                spec.integer_value_spec.max_value = math.floor(parameter.high)
            else:
                spec.double_value_spec.min_value = parameter.low
                spec.double_value_spec.max_value = parameter.high
        return study

    def _find(self, parent: str, name: str) -> Any:
        def page(token: str) -> Any:
            request = self._new("ListStudiesRequest", parent=parent, page_token=token)
            request.page_size = _PAGE
            return self._call("ListStudies", request, "ListStudiesResponse")

        return next((s for s in _pages(page, "studies") if s.display_name == name), None)

    def _trials(self) -> list[Any]:
        def page(token: str) -> Any:
            request = self._new("ListTrialsRequest", parent=self.study, page_token=token)
            request.page_size = _PAGE
            return self._call("ListTrials", request, "ListTrialsResponse")

        return list(_pages(page, "trials"))

    def _create(self, values: Mapping[str, Value], loss: float | None = None) -> Suggestion:
        complete = self._space.from_unit(self._space.to_unit(values))
        request = self._new("CreateTrialRequest", parent=self.study)
        for key, value in complete.items():
            parameter = request.trial.parameters.add(parameter_id=key)
            if isinstance(value, str):
                parameter.value.string_value = value
            else:
                parameter.value.number_value = value
        if loss is not None:
            request.trial.state = self._messages.value("Trial.State.SUCCEEDED")
            request.trial.final_measurement.metrics.add(metric_id=_METRIC, value=loss)
        return self._suggestion(self._call("CreateTrial", request, "Trial"))

    def _suggestion(self, trial: Any) -> Suggestion:
        given: dict[str, Value] = {}
        for parameter in trial.parameters:
            kind = parameter.value.WhichOneof("kind")
            given[parameter.parameter_id] = getattr(parameter.value, kind) if kind else ""
        # A service writes whole numbers as doubles, and may be off by a digit at the bounds.
        adopted = self._space.adopt(given)
        if not adopted.complete:
            raise FailedPrecondition("Vizier answered with values that are not in the space")
        return Suggestion(trial.name, adopted.values)

    def _new(self, kind: str, /, **fields: Any) -> Any:
        return self._messages.of(kind)(**fields)

    def _call(self, method: str, request: Any, answer: str) -> Any:
        service = f"{self._messages.package}.VizierService"
        if method == "GetOperation" and self._dialect == "vertex":
            service = "google.longrunning.Operations"
        # Vertex AI routes by the resource's name in this header.
        resource = next(
            str(getattr(request, key)) for key in ("parent", "name") if hasattr(request, key)
        )
        key = "parent" if hasattr(request, "parent") else "name"
        call: Callable[..., Any] = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._messages.of(answer).FromString,
        )
        try:
            return call(
                request,
                timeout=_CALL_TIMEOUT_S,
                metadata=(("x-goog-request-params", f"{key}={resource}"),),
            )
        except grpc.RpcError as error:
            kind = _ERRORS.get(error.code(), FailedPrecondition)
            raise kind(f"Vizier refused {method}: {error.details()[:300]}") from error


def _pages(page: Callable[[str], Any], field: str) -> Any:
    token = ""
    while True:
        response = page(token)
        yield from getattr(response, field)
        token = response.next_page_token
        if not token:
            return
