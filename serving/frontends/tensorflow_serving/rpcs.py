"""The RPC tables of ``PredictionService`` and ``ModelService``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    FailedPrecondition,
    InvalidArgument,
    Unimplemented,
    escape,
)
from crossfade.runtimes.core.model import InferResult
from crossfade.serving.dataplane.door import DataPlane
from crossfade.serving.frontends.tensorflow_serving import (
    describe,
    examples,
    inference,
    model_spec,
    predict,
    predict_codec,
    results,
)
from crossfade.serving.frontends.tensorflow_serving.inference import Task
from crossfade.serving.frontends.tensorflow_serving.plans import Plans
from crossfade.serving.lifecycle.model_list import ModelList
from crossfade.serving.metrics.tensorflow import TensorflowMetrics
from crossfade.serving.transport.calls import Access, Buffer, Call, Rpc, each
from crossfade.serving.wire import tf_serving as wire
from crossfade.serving.wire.fields import parse_small

PREDICTION: Final = "tensorflow.serving.PredictionService"
MODEL: Final = "tensorflow.serving.ModelService"
_Asked = Sequence[tuple[Any, Call]]
_Answers = Sequence[Any]
_Name = Callable[[Any], str]


def table(
    plane: DataPlane, metrics: TensorflowMetrics, models: ModelList | None = None
) -> list[Rpc[Any, Any]]:
    """The RPCs of both services over ``plane``.

    Args:
        plane: answers.
        metrics: counts what is answered.
        models: the list that the server follows; ``None`` where it follows a repository.
    """

    def with_examples(method: results.Method, response: Any) -> Callable[[_Asked], _Answers]:
        api = method.api

        def ask(request: Any, call: Call) -> Task:
            return _task(plane, method, request, request.input, call)

        def answer(task: Task, result: InferResult) -> Any:
            if isinstance(result, CrossfadeError):
                return result
            answered = response(model_spec=task.spec(result), result=task.result(result))
            metrics.record_runs(api, [result])
            metrics.record_examples(result.model.name, task.rows)
            return answered

        return lambda asked: _together(asked, ask, lambda t: inference.run(plane, t), answer)

    def multi_inference(request: Any, call: Call) -> Any:
        _check_tasks(request.tasks)
        tasks = [
            _task(plane, results.BY_NAME[asked.method_name], asked, request.input, call)
            for asked in request.tasks
        ]
        response = wire.MultiInferenceResponse()
        for task, result in zip(tasks, inference.run(plane, tasks), strict=True):
            if isinstance(result, CrossfadeError):
                raise result
            line = response.results.add(model_spec=task.spec(result))
            getattr(line, task.method.field).CopyFrom(task.result(result))
            metrics.record_runs("MultiInference", [result])
        metrics.record_examples(tasks[0].query.ref.name, tasks[0].rows)
        return response

    def metadata(request: Any, _: Call) -> Any:
        ref = model_spec.to_ref(request)
        describe.check_fields(request.metadata_field)
        return describe.metadata(plane, ref)

    def status(request: Any, _: Call) -> Any:
        return describe.status(plane, model_spec.to_ref(request))

    def reload(request: Any, _: Call) -> Any:
        if models is None:
            raise FailedPrecondition(
                "this server serves what its model repository holds, and not a list of models:"
                " only one that was started with a list takes another"
            )
        models.replace(request.config)
        response = wire.ReloadConfigResponse()
        response.status.SetInParent()
        return response

    def is_quick(message: Buffer) -> bool:
        name = predict_codec.model_of(message)
        return name is not None and plane.manager.is_quick(name)

    infer, read = Access.INFER, Access.READ
    classify = with_examples(results.CLASSIFY, wire.ClassificationResponse)
    classify = _timed(metrics, results.CLASSIFY.api, classify, _name)
    regress = with_examples(results.REGRESS, wire.RegressionResponse)
    regress = _timed(metrics, results.REGRESS.api, regress, _name)
    multi = _timed(
        metrics, "MultiInference", each(multi_inference), lambda asked: _name(asked.tasks[0])
    )
    of_examples = examples.decode
    return [
        Rpc(
            f"/{PREDICTION}/Predict",
            infer,
            Plans().decode,
            predict.handler(plane, metrics),
            bytes,
            is_quick,
        ),
        _rpc(f"{PREDICTION}/Classify", infer, wire.ClassificationRequest, classify, of_examples),
        _rpc(f"{PREDICTION}/Regress", infer, wire.RegressionRequest, regress, of_examples),
        _rpc(f"{PREDICTION}/MultiInference", infer, wire.MultiInferenceRequest, multi, of_examples),
        _rpc(f"{PREDICTION}/GetModelMetadata", read, wire.GetModelMetadataRequest, each(metadata)),
        _rpc(f"{MODEL}/GetModelStatus", read, wire.GetModelStatusRequest, each(status)),
        _rpc(
            f"{MODEL}/HandleReloadConfigRequest",
            Access.ADMIN,
            wire.ReloadConfigRequest,
            each(reload),
        ),
    ]


def _timed(
    metrics: TensorflowMetrics, api: str, handle: Callable[[_Asked], _Answers], name: _Name
) -> Callable[[_Asked], _Answers]:
    """Counts how long ``handle`` takes; ``name`` finds the model's in a request."""

    def measure(asked: _Asked) -> _Answers:
        began_ns = time.perf_counter_ns()
        answers = handle(asked)
        duration_ns = time.perf_counter_ns() - began_ns
        names = [
            name(request)
            for (request, _), found in zip(asked, answers, strict=True)
            if not isinstance(found, CrossfadeError)
        ]
        metrics.record_requests(names, api, "GRPC", duration_ns)
        return answers

    return measure


def _name(request: Any) -> str:
    name: str = request.model_spec.name
    return name


def _together(
    asked: _Asked,
    ask: Callable[[Any, Call], Any],
    run: Callable[[Sequence[Any]], Sequence[Any]],
    answer: Callable[[Any, Any], Any],
) -> _Answers:
    """Asks for all requests at once; each that fails on the way there or back fails alone."""
    answers: list[Any] = [None] * len(asked)
    places: list[int] = []
    asking: list[Any] = []
    for index, (request, call) in enumerate(asked):
        try:
            asking.append(ask(request, call))
            places.append(index)
        except CrossfadeError as error:
            answers[index] = error
    if asking:
        for index, what, result in zip(places, asking, run(asking), strict=True):
            try:
                answers[index] = answer(what, result)
            except CrossfadeError as error:
                answers[index] = error
    return answers


def _task(
    plane: DataPlane, method: results.Method, asked: Any, examples_of: Any, call: Call
) -> Task:
    return inference.task(
        plane,
        method,
        model_spec.to_ref(asked),
        signature_name=asked.model_spec.signature_name or None,
        serialized=examples.serialized(examples_of),
        deadline_s=call.deadline_s,
        cancelled=call.cancelled,
        caller=call,
    )


def _check_tasks(tasks: Sequence[Any]) -> None:
    if not tasks:
        raise InvalidArgument("MultiInferenceRequest has no tasks")
    seen: set[str] = set()
    for task in tasks:
        if task.model_spec.name != tasks[0].model_spec.name:
            raise InvalidArgument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = task.model_spec.signature_name
        if name in seen:
            raise InvalidArgument(f"Duplicate evaluation of signature: {escape(name)}")
        seen.add(name)
        if task.method_name not in results.BY_NAME:
            raise Unimplemented(f"Unsupported signature method_name: {escape(task.method_name)}")


def _rpc(
    path: str,
    access: Access,
    request: Any,
    handle: Callable[[_Asked], _Answers],
    read: Callable[[Any, Buffer], Any] = parse_small,
) -> Rpc[Any, Any]:
    def decode(message: Buffer) -> Any:
        return read(request, message)

    def encode(response: Any) -> bytes:
        data: bytes = response.SerializeToString()
        return data

    return Rpc(f"/{path}", access, decode, handle, encode)
