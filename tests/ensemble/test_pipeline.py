"""Steps take what others give, side by side where they can; what cannot fit is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from crossfade.ensemble.members import Member
from crossfade.ensemble.pipeline import Pipeline
from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument, Unavailable
from crossfade.runtimes.core.model import InferRequest, ModelRef, TensorSpec
from tests.ensemble.live import FakeLive, FakeModel, answered, ensemble, request


def step(
    do: Callable[..., Any] = lambda x: x,
    taken: tuple[int, ...] | None = (-1, 3),
    given: tuple[int, ...] | None = (-1, 3),
    dtypes: tuple[str, str] = ("FP32", "FP32"),
    **keys: Any,
) -> FakeModel:
    return FakeModel(
        lambda asked: {"y": do(asked.inputs["x"])},
        inputs=[TensorSpec("x", dtypes[0], taken)],
        outputs=[TensorSpec("y", dtypes[1], given)],
        **keys,
    )


def member(name: str, takes: str, gives: str) -> Member:
    return Member(name, ModelRef(name), None, {"x": takes}, {"y": gives})


def test_a_graph_in_any_order_of_its_steps() -> None:
    live = FakeLive(twice=step(lambda x: 2 * x), more=step(lambda x: x + 1), less=step(lambda x: x))
    both = FakeModel(
        lambda asked: {"sum": asked.inputs["a"] + asked.inputs["b"], "unused": asked.inputs["a"]},
        inputs=[TensorSpec("a", "FP32", (-1, 3)), TensorSpec("b", "FP32", (-1, 3))],
        outputs=[TensorSpec("sum", "FP32", (-1, 3)), TensorSpec("unused", "FP32", (-1, 3))],
        labels={"sum": ("p", "q", "r")},
    )
    live.models["both"] = both
    model = ensemble(
        Pipeline(),
        live,
        Member("both", ModelRef("both"), None, {"a": "t", "b": "m"}, {"sum": "OUT"}),
        member("twice", "IN", "t"),
        member("more", "t", "m"),
    )
    signature = model.metadata.signatures["serving_default"]
    assert [spec.name for spec in signature.inputs] == ["IN"]
    assert [spec.name for spec in signature.outputs] == ["OUT"]
    assert model.metadata.labels == {"OUT": ("p", "q", "r")}
    found = model.infer([request([1, 2, 3], name="IN"), request([0, 0, 0], name="IN")])
    assert [answered(one).outputs["OUT"].tolist() for one in found] == [[[5, 9, 13]], [[1, 1, 1]]]
    assert both.calls[0][0].outputs == ("sum",), "what nobody takes is not asked for"


def test_one_tensor_may_feed_several_steps_and_be_an_answer() -> None:
    live = FakeLive(one=step(), two=step(lambda x: -x), three=step(lambda x: 3 * x))
    model = ensemble(
        Pipeline(("mid", "b")),
        live,
        member("one", "IN", "mid"),
        member("two", "mid", "a"),
        member("three", "mid", "b"),
    )
    (found,) = model.infer([request([1, 2, 3], name="IN")])
    assert {n: a.tolist() for n, a in answered(found).outputs.items()} == {
        "mid": [[1, 2, 3]],
        "b": [[3, 6, 9]],
    }
    (found,) = model.infer([request([1, 2, 3], name="IN", outputs=("b",))])
    assert set(answered(found).outputs) == {"b"}


def test_a_request_that_fails_takes_no_further_step() -> None:
    def run(asked: InferRequest) -> Any:
        return Unavailable("no") if asked.inputs["x"][0, 0] == 1 else {"y": asked.inputs["x"]}

    first = step()
    first.run = run
    live = FakeLive(one=first, two=step())
    model = ensemble(Pipeline(), live, member("one", "IN", "mid"), member("two", "mid", "OUT"))
    bad, good = model.infer([request([1, 0, 0], name="IN"), request([2, 0, 0], name="IN")])
    assert isinstance(bad, Unavailable)
    assert answered(good).outputs["OUT"].tolist() == [[2, 0, 0]]
    assert [len(call) for call in live.models["two"].calls] == [1]


def test_shapes_that_only_a_request_tells() -> None:
    live = FakeLive(cut=step(lambda x: x[:, :2], given=(-1, -1)), two=step(given=(-1, -1)))
    model = ensemble(Pipeline(), live, member("cut", "IN", "mid"), member("two", "mid", "OUT"))
    (found,) = model.infer([request([1, 2, 3], name="IN")])
    assert isinstance(found, InvalidArgument)
    assert found.message == "tensor 'mid' has shape [1, 2], but step 'two' takes FP32 [-1, 3]"
    assert live.models["two"].calls == []


def test_a_step_may_change_the_number_of_rows_where_there_is_no_batch() -> None:
    crops = FakeModel(
        lambda asked: {"y": np.concatenate([asked.inputs["x"]] * 5)},
        inputs=[TensorSpec("x", "FP32", (1, 3))],
        outputs=[TensorSpec("y", "FP32", (-1, 3))],
    )
    live = FakeLive(crops=crops, two=step(max_batch_size=8))
    model = ensemble(Pipeline(), live, member("crops", "IN", "mid"), member("two", "mid", "OUT"))
    assert not model.metadata.signatures["serving_default"].batched
    (found,) = model.infer([request([1, 2, 3], name="IN")])
    assert answered(found).outputs["OUT"].shape == (5, 3)
    assert live.models["two"].calls[0][0].rows == 5
    live.models["two"] = step(max_batch_size=4)
    (found,) = model.infer([request([1, 2, 3], name="IN")])
    assert isinstance(found, InvalidArgument)
    assert "1 to 4 rows" in found.message


@pytest.mark.parametrize(
    ("models", "members", "outputs", "says"),
    [
        (
            {"one": step(), "two": step()},
            [member("one", "b", "a"), member("two", "a", "b")],
            (),
            "in a circle: 'one', 'two'",
        ),
        ({"one": step()}, [member("one", "a", "a")], (), "in a circle: 'one'"),
        (
            {"one": step(), "two": step()},
            [member("one", "i", "a"), member("two", "i", "a")],
            (),
            "steps 'one' and 'two' both give the tensor 'a'",
        ),
        ({"one": step()}, [member("one", "i", "a")], ("c",), "no step gives the tensor 'c'"),
        (
            {"one": step(), "two": step(taken=(-1, 4))},
            [member("one", "i", "a"), member("two", "a", "b")],
            (),
            r"'one' gives 'a' as FP32 \[-1, 3\], but step 'two' takes FP32 \[-1, 4\]",
        ),
        (
            {"one": step(), "two": step(dtypes=("INT64", "FP32"))},
            [member("one", "i", "a"), member("two", "a", "b")],
            (),
            "takes INT64",
        ),
        (
            {"one": step(), "two": step(dtypes=("INT64", "FP32"))},
            [member("one", "i", "a"), member("two", "i", "b")],
            (),
            "input 'i' is FP32",
        ),
        (
            {"one": step()},
            [Member("one", ModelRef("one"), None, {"z": "i"})],
            (),
            r"its model has no input 'z', but \['x'\]",
        ),
        (
            {"one": step()},
            [Member("one", ModelRef("one"), "other")],
            (),
            "no signature 'other'",
        ),
    ],
)
def test_graphs_that_are_none(
    models: Mapping[str, FakeModel], members: list[Member], outputs: tuple[str, ...], says: str
) -> None:
    with pytest.raises(FailedPrecondition, match=says):
        ensemble(Pipeline(outputs), FakeLive(**models), *members)
