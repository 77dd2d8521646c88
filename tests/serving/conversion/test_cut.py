"""Where a graph is cut."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from crossfade.serving.conversion.cut import Node, find_cut, impossible, needed, tensor_name


def graph(**nodes: str) -> dict[str, Node]:
    """``a="Op x y"`` is a node with an operation that reads two others."""
    parts = {name: text.split() for name, text in nodes.items()}
    return {
        name: Node(frozenset({op}), tuple(map(tensor_name, inputs)))
        for name, (op, *inputs) in parts.items()
    }


PICTURE = graph(
    bytes="Placeholder",
    key="Placeholder",
    decoded="DecodeImage bytes",
    resized="ResizeBilinear decoded",
    weights="Const",
    scaled="Mul resized weights",
    scores="MatMul scaled weights",
    echo="Identity key",
)


def anything(tensor: str) -> bool:
    return True


def test_it_cuts_right_after_the_decoding() -> None:
    assert find_cut(PICTURE, ["bytes:0"], ["scores:0"], anything) == "decoded:0"
    known: Callable[[str], bool] = lambda tensor: tensor != "decoded:0"  # noqa: E731
    assert find_cut(PICTURE, ["bytes:0"], ["scores:0"], known) == "resized:0"
    assert impossible(PICTURE, needed(PICTURE, ["scores:0"])) == {"DecodeImage"}
    assert impossible(PICTURE, needed(PICTURE, ["echo:0"])) == set()


def test_no_cut_where_an_output_takes_another_way() -> None:
    around = PICTURE | graph(length="StringLength bytes", both="Add scores length")
    assert find_cut(around, ["bytes:0"], ["both:0"], lambda t: t != "both:0") is None


def test_no_cut_where_something_impossible_is_left() -> None:
    late = PICTURE | graph(text="DecodeRaw scaled", late="Cast text")
    assert find_cut(late, ["bytes:0"], ["late:0"], lambda t: t == "resized:0") is None


def test_a_graph_with_a_circle_ends() -> None:
    circle = graph(a="Add b", b="Add a", y="Add a")
    assert needed(circle, ["y:0"]) == {"a", "b", "y"}
    assert find_cut(circle, ["x:0"], ["y:0"], anything) is None


@given(st.data())
def test_behind_a_cut_nothing_needs_the_input(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    nodes = {"n0": Node(frozenset({"Placeholder"}), ())}
    for index in range(1, count):
        reads = data.draw(st.lists(st.integers(0, index - 1), max_size=3))
        op = data.draw(st.sampled_from(["Add", "DecodeImage"]))
        nodes[f"n{index}"] = Node(frozenset({op}), tuple(f"n{i}:0" for i in reads))
    output = f"n{count - 1}:0"
    found = find_cut(nodes, ["n0:0"], [output], anything)
    if found is not None:
        rest = needed(nodes, [output], frozenset({found}))
        assert "n0" not in rest
        assert not impossible(nodes, rest)
        assert "n0" in needed(nodes, [found])
