"""Patterns of routes as path templates."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.serving.transport.path_templates import templates

NAME = r"(?P<name>[^/]+)"


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("/v2", ["/v2"]),
        ("/metrics/?", ["/metrics", "/metrics/"]),
        (rf"/m/{NAME}:run", ["/m/{name}:run"]),
        (rf"/m/{NAME}(?:/v/(?P<v>[0-9]+))?/x", ["/m/{name}/x", "/m/{name}/v/{v}/x"]),
        (r"/m(?:/a/(?P<a>[0-9]+)|/b/(?P<b>[^/:]+))?", ["/m", "/m/a/{a}", "/m/b/{b}"]),
        (r"/m(?:/(?P<a>\w+)(?:/b)?)?", ["/m", "/m/{a}", "/m/{a}/b"]),
        (r"/openapi\.json", ["/openapi.json"]),
    ],
)
def test_forms(pattern: str, paths: list[str]) -> None:
    assert [form.path for form in templates(pattern)] == paths


def test_parts_keep_their_patterns() -> None:
    (form,) = templates(rf"/m/{NAME}/versions/(?P<version>[0-9]{{1,19}})")
    assert form.parts == {"name": "[^/]+", "version": "[0-9]{1,19}"}


@pytest.mark.parametrize(
    "pattern", ["/a.b", "/a(?:/.*)?", "/[ab]", "/a|/b", "/(a)", r"/\d", "/a+", "/(?P<a>", "/a)"]
)
def test_what_is_no_template(pattern: str) -> None:
    with pytest.raises(ValueError, match="no path template"):
        templates(pattern)


PIECES = st.lists(
    st.sampled_from(
        [
            "/a",
            r"\.",
            "/(?P<n{0}>[a-z]+)",
            "(?:/b{0}/(?P<n{0}>[a-z]+))?",
            "(?:/c|/d)?",
            "/?",
            ":run",
            "-",
        ]
    ),
    min_size=1,
    max_size=5,
)


@given(PIECES)
def test_every_form_is_one_that_the_pattern_matches(pieces: list[str]) -> None:
    pattern = "".join(piece.format(number) for number, piece in enumerate(pieces))
    for form in templates(pattern):
        path = re.sub(r"\{\w+\}", "part", form.path)
        match = re.fullmatch(pattern, path)
        assert match, (pattern, path)
        assert {k for k, v in match.groupdict().items() if v is not None} == form.parts.keys()
