from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.arr_coc.geometry import PLACES
from crossfade.training.arr_coc.queries import MAX_WORDS, PAD, Language, Query
from crossfade.training.arr_coc.text_graph import text_graph

LANGUAGE = Language.make(
    ("Café", "RBC"),
    {"RBC": ("RBC", "red blood cells", 'odd "x\\y')},
    ("any cell",),
    (("RBC", "top"), ("any", "right")),
)
WORDS = st.sampled_from(
    [*LANGUAGE.vocabulary, "RBC,", "Left.", "unheard", "É", "日本", "on,the", ""]
)


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    return ort.InferenceSession(text_graph(LANGUAGE).SerializeToString())


@given(
    st.lists(
        st.one_of(
            st.lists(WORDS, max_size=12).map(" ".join),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_graph_reads_text_as_python_does(
    session: ort.InferenceSession, texts: list[str]
) -> None:
    tokens, unknown = session.run(None, {"query": np.array([texts, texts], dtype=object)})
    assert (tokens[0] == LANGUAGE.tokens(texts)).all()
    assert (tokens[1] == tokens[0]).all()
    for text, count in zip(texts, unknown[0], strict=True):
        words = [w for w in text.split(" ") if w]
        known = sum(LANGUAGE.tokens([word])[0, 0] != PAD for word in words)
        assert count == len(words) - known


def test_every_query_can_be_said_and_is_told_from_the_others() -> None:
    said = [LANGUAGE.tokens(LANGUAGE.phrases(query)) for query in LANGUAGE.queries]
    assert all((tokens[:, 0] != PAD).all() for tokens in said)
    plain = {tuple(tokens[0]) for tokens in said}
    assert len(plain) == len(LANGUAGE.queries) == 3 * len(PLACES)


def test_held_out_queries_are_not_trained() -> None:
    assert Query(1, PLACES.index("top")) not in LANGUAGE.trained
    assert Query(2, PLACES.index("right")) not in LANGUAGE.trained
    assert len(LANGUAGE.trained) == 13


def test_long_texts_are_cut() -> None:
    assert LANGUAGE.tokens(["rbc " * 50]).shape == (1, MAX_WORDS)


@pytest.mark.parametrize(
    ("words", "held_out", "why"),
    [
        ({"dog": ("dog",)}, (), "no class 'dog'"),
        ({}, (("dog", "left"),), "no class 'dog'"),
        ({}, (("cat", "above"),), "no place 'above'"),
    ],
)
def test_words_for_what_is_not_there_are_refused(
    words: dict[str, tuple[str, ...]], held_out: tuple[tuple[str, str], ...], why: str
) -> None:
    with pytest.raises(InvalidArgument, match=why):
        Language.make(("cat",), words, ("any",), held_out)
