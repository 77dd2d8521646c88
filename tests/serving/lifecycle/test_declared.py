"""What a configuration declares of a model: obeyed where it fits, refused where it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Session, Signature, Tensors, TensorSpec
from crossfade.serving.config.model_config import DeclaredTensor, ModelConfig
from crossfade.serving.lifecycle.declared import declare


class Echo:
    """Gives each input back as the output of the same place, and remembers what it was asked."""

    def __init__(self, signatures: Mapping[str, Signature]) -> None:
        self.signatures = signatures
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.asked: Sequence[str] = ()
        self.closed = 0

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        self.shapes = {name: array.shape for name, array in inputs.items()}
        self.asked = outputs
        one = self.signatures[signature]
        made = {
            out.name: inputs[given.name]
            for given, out in zip(one.inputs, one.outputs, strict=True)
            if given.name in inputs
        }
        return {name: made[name] for name in outputs or made}

    def close(self) -> None:
        self.closed += 1


def spec(name: str, *shape: int, dtype: str = "FP32", optional: bool = False) -> TensorSpec:
    return TensorSpec(name, dtype, shape, optional)


def echo(*pairs: tuple[TensorSpec, TensorSpec], batched: bool | None = None) -> Echo:
    inputs, outputs = [p[0] for p in pairs], [p[1] for p in pairs]
    signature = Signature.derive(inputs, outputs)
    if batched is not None:
        signature = Signature(signature.inputs, signature.outputs, batched)
    return Echo({"serving_default": signature})


def one_input(*shape: int) -> Echo:
    return echo((spec("x", *shape), spec("y", *shape)))


def config(
    inputs: Sequence[Mapping[str, Any]] = (),
    outputs: Sequence[Mapping[str, Any]] = (),
    **others: Any,
) -> ModelConfig:
    return ModelConfig(
        inputs=tuple(DeclaredTensor(**t) for t in inputs),
        outputs=tuple(DeclaredTensor(**t) for t in outputs),
        **others,
    )


def only(session: Session) -> Signature:
    (signature,) = session.signatures.values()
    return signature


def fault(session: Session, declared: ModelConfig) -> str:
    with pytest.raises(LoadFailed) as caught:
        declare(session, declared)
    return caught.value.message


def test_nothing_declared_changes_nothing() -> None:
    session = one_input(-1, 2)
    assert declare(session, ModelConfig(max_batch_size=4)) is session


def test_closing_passes_through() -> None:
    session = one_input(-1, 2)
    declare(session, config(outputs=[{"name": "y"}])).close()
    assert session.closed == 1


# -- contradictions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            config(inputs=[{"name": "z"}]),
            "the configuration declares the input 'z', but the model has ['x']",
        ),
        (
            config(outputs=[{"name": "z"}]),
            "the configuration declares the output 'z', but the model has ['y']",
        ),
        (
            config(inputs=[{"name": "x", "dtype": "FP64"}]),
            "the configuration declares input 'x' as FP64, but the model has FP32",
        ),
        (
            config(outputs=[{"name": "y", "dtype": "INT32"}]),
            "the configuration declares output 'y' as INT32, but the model has FP32",
        ),
        (
            config(inputs=[{"name": "x", "dims": (3,)}], max_batch_size=8),
            "the configuration declares input 'x' with shape [-1, 3], but the model has [-1, 2]",
        ),
        (
            config(inputs=[{"name": "x", "dims": (2, 1)}], max_batch_size=8),
            "the configuration declares input 'x' with shape [-1, 2, 1], but the model has [-1, 2]",
        ),
        (
            config(inputs=[{"name": "x", "dims": (2,)}], max_batch_size=0),
            "the configuration declares input 'x' with shape [2], but the model has [-1, 2]",
        ),
        (
            config(outputs=[{"name": "y", "dims": (3, 1), "reshape": (3,)}], max_batch_size=8),
            "the configuration declares output 'y' with shape [-1, 3], but the model has [-1, 2]",
        ),
        (
            config(inputs=[{"name": "x", "dims": (3,), "reshape": (2,)}], max_batch_size=8),
            "the configuration reshapes input 'x' from [3] to [2], which are not of one size",
        ),
    ],
)
def test_contradictions_are_refused_with_both_sides(declared: ModelConfig, message: str) -> None:
    assert fault(one_input(-1, 2), declared) == message


def test_a_required_input_must_be_declared_if_any_is() -> None:
    session = echo((spec("a", -1), spec("p", -1)), (spec("b", -1), spec("q", -1)))
    message = fault(session, config(inputs=[{"name": "a"}], max_batch_size=4))
    assert message == "the configuration does not declare the input(s) ['b']"


def test_an_optional_input_need_not_be_declared() -> None:
    session = echo((spec("a", -1), spec("p", -1)), (spec("b", -1, optional=True), spec("q", -1)))
    declared = declare(session, config(inputs=[{"name": "a"}], max_batch_size=4))
    assert [s.name for s in only(declared).inputs] == ["a"]


def test_a_batch_cannot_be_declared_where_the_model_has_none() -> None:
    session = echo((spec("x", 1, 2), spec("y", 1, 2)))
    message = fault(session, config(inputs=[{"name": "x", "dims": (2,)}], max_batch_size=8))
    assert message == (
        "max_batch_size is 8, but the model's first dimension is not a batch of any size;"
        " set max_batch_size to 0"
    )


# -- what is declared, counts -------------------------------------------------------------------


def test_a_free_dimension_may_be_pinned_and_a_pinned_one_left_free() -> None:
    session = echo((spec("x", -1, -1, 3), spec("y", -1, -1, 3)))
    declared = declare(
        session,
        config(
            inputs=[{"name": "x", "dtype": "FP32", "dims": (7, -1)}],
            outputs=[{"name": "y", "dims": (-1, 3)}],
            max_batch_size=4,
        ),
    )
    assert only(declared).inputs == (spec("x", -1, 7, -1),)
    assert only(declared).outputs == (spec("y", -1, -1, 3),)
    assert only(declared).batched


def test_no_batch_is_declared_by_zero() -> None:
    declared = declare(
        one_input(-1, 2), config(inputs=[{"name": "x", "dims": (-1, 2)}], max_batch_size=0)
    )
    assert only(declared).inputs == (spec("x", -1, 2),)
    assert not only(declared).batched


@pytest.mark.parametrize("batched", [True, False])
def test_without_a_word_about_the_batch_the_model_decides(batched: bool) -> None:
    """Labels in ``model.yaml`` must not cost a model its batch."""
    shape = (-1, 2) if batched else (3, 2)
    declared = declare(one_input(*shape), config(outputs=[{"name": "y", "labels": ("a", "b")}]))
    assert only(declared).batched == batched
    dims = (2,) if batched else (3, 2)
    declared = declare(one_input(*shape), config(inputs=[{"name": "x", "dims": dims}]))
    assert only(declared).inputs == (spec("x", *shape),)
    assert only(declared).batched == batched


def test_fewer_outputs() -> None:
    session = echo(
        (spec("a", -1), spec("p", -1)),
        (spec("b", -1), spec("q", -1)),
        (spec("c", -1), spec("r", -1)),
    )
    declared = declare(session, config(outputs=[{"name": "r"}, {"name": "p"}], max_batch_size=4))
    assert [s.name for s in only(declared).outputs] == ["r", "p"]
    inputs = {name: np.ones(2, np.float32) for name in "abc"}
    assert list(declared.run(inputs, "serving_default", ())) == ["r", "p"]
    assert tuple(session.asked) == ("r", "p"), "what nobody wants is not computed"
    assert list(declared.run(inputs, "serving_default", ("p",))) == ["p"]
    assert tuple(session.asked) == ("p",)


def test_a_model_of_unknown_rank_takes_any_declared_shape() -> None:
    unknown = TensorSpec("x", "FP32", None)
    session = Echo({"serving_default": Signature((unknown,), (spec("y", -1, 2),))})
    declared = declare(session, config(inputs=[{"name": "x", "dims": (4, 2)}], max_batch_size=0))
    assert only(declared).inputs == (spec("x", 4, 2),)


def test_of_several_signatures_the_default_one_is_declared() -> None:
    wrong = Signature.derive([spec("w", -1)], [spec("v", -1)])
    right = Signature.derive([spec("x", -1, 2)], [spec("y", -1, 2)])
    session = Echo({"aaa": wrong, "serving_default": right})
    declared = declare(session, config(inputs=[{"name": "x", "dims": (2,)}], max_batch_size=4))
    assert declared.signatures.keys() == {"serving_default"}
    x = np.ones((1, 2), np.float32)
    assert declared.run({"x": x}, "serving_default", ())["y"].shape == (1, 2)


# -- reshape ------------------------------------------------------------------------------------


def test_reshape_goes_in_and_is_undone_on_the_way_out() -> None:
    session = one_input(-1, 2, 3)
    declared = declare(
        session,
        config(
            inputs=[{"name": "x", "dims": (6,), "reshape": (2, 3)}],
            outputs=[{"name": "y", "dims": (3, 1, 2), "reshape": (2, 3)}],
            max_batch_size=8,
        ),
    )
    assert only(declared).inputs == (spec("x", -1, 6),)
    assert only(declared).outputs == (spec("y", -1, 3, 1, 2),)
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    y = declared.run({"x": x}, "serving_default", ())["y"]
    assert session.shapes == {"x": (4, 2, 3)}
    assert y.shape == (4, 3, 1, 2)
    np.testing.assert_array_equal(y.ravel(), x.ravel())


def test_reshape_without_a_batch() -> None:
    session = one_input(2, 3)
    declared = declare(
        session,
        config(
            inputs=[{"name": "x", "dims": (6,), "reshape": (2, 3)}],
            outputs=[{"name": "y", "dims": (6,), "reshape": (2, 3)}],
            max_batch_size=0,
        ),
    )
    y = declared.run({"x": np.zeros(6, np.float32)}, "serving_default", ("y",))["y"]
    assert session.shapes == {"x": (2, 3)}
    assert y.shape == (6,)


def test_reshape_to_nothing_but_the_batch_and_back() -> None:
    """Triton's way to feed a model whose tensors are one number a row."""
    session = one_input(-1)
    declared = declare(
        session,
        config(
            inputs=[{"name": "x", "dims": (1,), "reshape": ()}],
            outputs=[{"name": "y", "dims": (1,), "reshape": ()}],
            max_batch_size=8,
        ),
    )
    y = declared.run({"x": np.ones((5, 1), np.float32)}, "serving_default", ())["y"]
    assert session.shapes == {"x": (5,)}
    assert y.shape == (5, 1)


def test_an_output_of_one_number_may_be_declared_without_dimensions() -> None:
    session = one_input(1)
    declared = declare(
        session,
        config(
            inputs=[{"name": "x", "dims": (), "reshape": (1,)}],
            outputs=[{"name": "y", "dims": (), "reshape": (1,)}],
            max_batch_size=0,
        ),
    )
    y = declared.run({"x": np.array(3, np.float32)}, "serving_default", ())["y"]
    assert session.shapes == {"x": (1,)}
    assert y.shape == ()


def test_free_dimensions_keep_their_places() -> None:
    """[a, 1, b] to [a, b]: the sizes are those of the request, in their order."""
    session = one_input(-1, -1, -1)
    declared = declare(
        session,
        config(
            inputs=[{"name": "x", "dims": (-1, 1, -1), "reshape": (-1, -1)}],
            outputs=[{"name": "y", "dims": (-1, 1, -1), "reshape": (-1, -1)}],
            max_batch_size=8,
        ),
    )
    x = np.arange(24, dtype=np.float32).reshape(4, 2, 1, 3)
    y = declared.run({"x": x}, "serving_default", ())["y"]
    assert session.shapes == {"x": (4, 2, 3)}
    np.testing.assert_array_equal(y, x)
