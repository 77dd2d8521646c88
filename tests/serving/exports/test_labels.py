"""Class names of lines and of label maps."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.exports.labels import of_label_map, of_lines, read


def label_map(text: str) -> list[str]:
    return of_label_map(text.encode(), "map.pbtxt")


@pytest.mark.parametrize(
    "content", [b"cat\ndog", b"cat\ndog\n", b"cat\r\ndog\r\n", b"cat\ndog\n\n"]
)
def test_lines_with_and_without_the_last_newline(content: bytes) -> None:
    assert of_lines(content, "dict.txt") == ["cat", "dog"]


def test_an_empty_line_keeps_the_indexes() -> None:
    assert of_lines(b"cat\n\ndog", "dict.txt") == ["cat", "", "dog"]


def test_a_label_map_counts_from_one_and_a_model_from_zero() -> None:
    text = """
    # of a detector
    item { id: 3 name: "dog" keypoints { id: 1 } }
    item { name: '/m/01' id: 1 display_name: "a \\"cat\\"" }
    """
    assert label_map(text) == ['a "cat"', "???", "dog"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "item { id: 0 name: 'background' }",
        "item { id: 1 name: 'a' } item { id: 1 name: 'b' }",
        "item { name: 'no id' }",
        "item { id: -1 }",
        "item { id: 2000000000 }",
        "item { id: 99999999999999999999 }",
        "item {",
        "{}",
        "item { x " + "{ y " * 5000 + "}",
    ],
)
def test_what_is_no_label_map(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"map\.pbtxt"):
        label_map(text)


@given(st.one_of(st.binary(max_size=100), st.text(max_size=100).map(str.encode)))
def test_garbage(content: bytes) -> None:
    for parse in (of_lines, of_label_map):
        with contextlib.suppress(InvalidArgument):
            parse(content, "map.pbtxt")


@given(
    st.lists(st.sampled_from(["item", "{", "}", "id", ":", "1", "'a'", "name", "x"]), max_size=30)
)
def test_garbage_of_the_right_words(words: list[str]) -> None:
    with contextlib.suppress(InvalidArgument):
        label_map(" ".join(words))


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1))
def test_what_is_written_is_read(names: list[str]) -> None:
    quoted = (name.replace("\\", "\\\\").replace('"', '\\"') for name in names)
    text = "".join(f'item {{ id: {i} name: "{name}" }}\n' for i, name in enumerate(quoted, 1))
    assert label_map(text) == names
    assert of_lines("\n".join(names).encode(), "dict.txt") == names


def test_the_suffix_decides(tmp_path: Path, shared: Path) -> None:
    tracker = shared / "automl-video" / "traffic" / "traffic_label_map.pbtxt"
    assert read(tracker) == ["sedan", "pickup_suv_van", "large_veh_bus"]
    assert len(read(shared / "automl-vision-edge" / "flowers" / "dict.txt")) == 5
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read(tmp_path / "none.txt")
    (tmp_path / "large.txt").write_bytes(b"x" * (5 << 20))
    with pytest.raises(InvalidArgument, match="too large"):
        read(tmp_path / "large.txt")
