"""A VizierService on 127.0.0.1, in either dialect: keeps studies, suggests at random.

Where the open-source server is known to differ, the dialect ``oss`` does as it does.

It checks what a real one checks: bounds, complete parameters, states, and that an operation is
asked about until it is done.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from crossfade.training.tuning.vizier.messages import Dialect, messages


class Refused(Exception):
    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Service:
    def __init__(self, dialect: Dialect, polls: int = 2) -> None:
        self.messages = messages(dialect)
        self.dialect = dialect
        self.polls = polls
        self.studies: dict[str, Any] = {}
        self.trials: dict[str, dict[str, Any]] = {}
        self.operations: dict[str, tuple[int, Any]] = {}
        self.calls: list[str] = []
        self.headers: list[str] = []
        self.fail_operations = False
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._random = np.random.default_rng(0)

    def create_study(self, request: Any) -> Any:
        study = request.study
        if not study.study_spec.metrics or not study.study_spec.parameters:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "a study needs metrics and parameters")
        unspecified = self.messages.value(
            "StudySpec.ParameterSpec.ScaleType.SCALE_TYPE_UNSPECIFIED"
        )
        for spec in study.study_spec.parameters:
            if not spec.HasField("categorical_value_spec") and spec.scale_type == unspecified:
                raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "a number needs a scale")
        for there in self.studies.values() if self.dialect == "oss" else ():
            if there.display_name == study.display_name:
                return there
        study.name = f"{request.parent}/studies/{next(self._ids)}"
        self.studies[study.name] = study
        self.trials[study.name] = {}
        return study

    def list_studies(self, request: Any) -> Any:
        if self.dialect == "oss" and not self.studies:
            raise Refused(grpc.StatusCode.UNKNOWN, "the owner does not exist")
        mine = [s for n, s in self.studies.items() if n.startswith(f"{request.parent}/")]
        return self._page(mine, request, "ListStudiesResponse", "studies")

    def create_trial(self, request: Any) -> Any:
        complete = request.trial.state in self._states("SUCCEEDED") and self.dialect == "oss"
        state = "SUCCEEDED" if complete else "REQUESTED"
        return self._new_trial(request.parent, request.trial, state)

    def suggest_trials(self, request: Any) -> Any:
        study = self._study(request.parent)
        response = self.messages.of("SuggestTrialsResponse")()
        waiting = [
            trial
            for trial in self.trials[request.parent].values()
            if self.dialect == "oss" and trial.state in self._states("REQUESTED")
        ]
        for trial in waiting[: request.suggestion_count]:
            (trial.state,) = self._states("ACTIVE")
            response.trials.append(trial)
        for _ in range(request.suggestion_count - len(response.trials)):
            trial = self.messages.of("Trial")(client_id=request.client_id)
            for spec in study.study_spec.parameters:
                self._draw(spec, trial.parameters.add(parameter_id=spec.parameter_id).value)
            response.trials.append(self._new_trial(request.parent, trial, "ACTIVE"))
        operation = self.messages.of("Operation")(name=f"operations/{next(self._ids)}")
        if self.fail_operations:
            operation.error.code = 8
            operation.error.message = "no more quota"
        else:
            operation.response.value = response.SerializeToString()
        operation.done = True
        self.operations[operation.name] = (self.polls, operation)
        return self.messages.of("Operation")(name=operation.name)

    def get_operation(self, request: Any) -> Any:
        left, operation = self.operations[request.name]
        self.operations[request.name] = (left - 1, operation)
        return operation if left <= 1 else self.messages.of("Operation")(name=operation.name)

    def complete_trial(self, request: Any) -> Any:
        study = request.name.rpartition("/trials/")[0]
        self._study(study)
        trial = self.trials[study].get(request.name)
        if trial is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, "no such trial")
        if trial.state in self._states("SUCCEEDED", "INFEASIBLE"):
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "the trial is complete")
        if self.dialect == "oss" and trial.state not in self._states("ACTIVE", "STOPPING"):
            raise Refused(grpc.StatusCode.UNKNOWN, "only trials in state ACTIVE can be completed")
        if request.trial_infeasible:
            (trial.state,) = self._states("INFEASIBLE")
        else:
            wanted = {metric.metric_id for metric in self.studies[study].study_spec.metrics}
            if {metric.metric_id for metric in request.final_measurement.metrics} != wanted:
                raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "a metric is missing")
            (trial.state,) = self._states("SUCCEEDED")
            trial.final_measurement.CopyFrom(request.final_measurement)
        return trial

    def list_trials(self, request: Any) -> Any:
        self._study(request.parent)
        found = list(self.trials[request.parent].values())
        return self._page(found, request, "ListTrialsResponse", "trials")

    def _study(self, name: str) -> Any:
        if name not in self.studies:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"no study {name}")
        return self.studies[name]

    def _new_trial(self, parent: str, trial: Any, state: str) -> Any:
        specs = {spec.parameter_id: spec for spec in self._study(parent).study_spec.parameters}
        given = {parameter.parameter_id: parameter.value for parameter in trial.parameters}
        if specs.keys() != given.keys():
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "parameters are missing or unknown")
        for name, value in given.items():
            if not self._fits(specs[name], value):
                raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{name} is out of bounds")
        trial.id = str(next(self._ids))
        trial.name = f"{parent}/trials/{trial.id}"
        (trial.state,) = self._states(state)
        self.trials[parent][trial.name] = trial
        return trial

    def _fits(self, spec: Any, value: Any) -> bool:
        if spec.HasField("categorical_value_spec"):
            return value.string_value in spec.categorical_value_spec.values
        whole = spec.HasField("integer_value_spec")
        bounds = spec.integer_value_spec if whole else spec.double_value_spec
        number = value.number_value
        inside = bounds.min_value <= number <= bounds.max_value
        return bool(inside and (not whole or number == int(number)))

    def _draw(self, spec: Any, value: Any) -> None:
        if spec.HasField("categorical_value_spec"):
            value.string_value = str(self._random.choice(list(spec.categorical_value_spec.values)))
        elif spec.HasField("integer_value_spec"):
            bounds = spec.integer_value_spec
            drawn = self._random.integers(bounds.min_value, bounds.max_value, endpoint=True)
            value.number_value = float(drawn)
        else:
            bounds = spec.double_value_spec
            low, high = np.log([bounds.min_value, bounds.max_value])
            drawn = float(np.exp(self._random.uniform(low, high)))
            value.number_value = min(max(drawn, bounds.min_value), bounds.max_value)

    def _states(self, *names: str) -> list[int]:
        return [self.messages.value(f"Trial.State.{name}") for name in names]

    def _page(self, found: list[Any], request: Any, answer: str, field: str) -> Any:
        """Three to a page, whatever was asked for: a client must follow the tokens."""
        start = int(request.page_token or 0)
        response = self.messages.of(answer)()
        getattr(response, field).extend(found[start : start + 3])
        response.next_page_token = str(start + 3) if start + 3 < len(found) else ""
        return response


_METHODS = {
    "CreateStudy": ("CreateStudyRequest", "create_study"),
    "ListStudies": ("ListStudiesRequest", "list_studies"),
    "CreateTrial": ("CreateTrialRequest", "create_trial"),
    "SuggestTrials": ("SuggestTrialsRequest", "suggest_trials"),
    "CompleteTrial": ("CompleteTrialRequest", "complete_trial"),
    "ListTrials": ("ListTrialsRequest", "list_trials"),
    "GetOperation": ("GetOperationRequest", "get_operation"),
}


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, service: Service) -> None:
        self._service = service

    def service(self, details: Any) -> Any:
        own, method = details.method.strip("/").split("/")
        operations = self._service.dialect == "vertex" and method == "GetOperation"
        package = f"{self._service.messages.package}.VizierService"
        if own != ("google.longrunning.Operations" if operations else package):
            return None
        request, function = _METHODS[method]
        headers = dict(details.invocation_metadata)

        def answer(message: Any, context: Any) -> Any:
            self._service.calls.append(method)
            self._service.headers.append(headers.get("x-goog-request-params", ""))
            with self._service._lock:
                try:
                    return getattr(self._service, function)(message)
                except Refused as refused:
                    context.abort(refused.code, refused.text)

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=self._service.messages.of(request).FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


@contextlib.contextmanager
def running(dialect: Dialect) -> Iterator[tuple[Service, grpc.Channel]]:
    service = Service(dialect)
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((_Handler(service),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield service, channel
    finally:
        server.stop(None).wait(5)
