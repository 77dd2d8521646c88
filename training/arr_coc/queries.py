"""Queries: which class, where; as words, and as token numbers."""

from __future__ import annotations

import dataclasses
import itertools
import string
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.arr_coc.geometry import PLACES

ANY: Final = "any"
PAD: Final = 0  # of the vocabulary: no word, or one that is not known
MAX_WORDS: Final = 8
_MARKS: Final = ("", ",", ".", "?", "!", ";", ":")
_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_PLACE_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "all": ("", "everywhere", "in the picture"),
    **{
        place: (place, f"on the {place}", f"in the {place} half")
        for place in PLACES
        if place != "all"
    },
}


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """A class (``len(labels)`` is any) in a place, by their numbers."""

    kind: int
    place: int


@dataclasses.dataclass(frozen=True)
class Language:
    """What can be asked of a set, and how it is said.

    Attributes:
        labels: of the set.
        class_words: ways to say each class; those of "any" are last.
        held_out: queries that are never trained.
    """

    labels: tuple[str, ...]
    class_words: tuple[tuple[str, ...], ...]
    held_out: frozenset[Query]

    @classmethod
    def make(
        cls,
        labels: Sequence[str],
        words: Mapping[str, Sequence[str]],
        any_words: Sequence[str],
        held_out: Sequence[tuple[str, str]],
    ) -> Language:
        """Checks the parts against each other.

        Raises:
            InvalidArgument: words or a held-out query name a class or place that is not there.
        """
        kinds = (*labels, ANY)
        unknown = [label for label in words if label not in labels]
        unknown += [label for label, _ in held_out if label not in kinds]
        if unknown:
            raise InvalidArgument(f"there is no class '{unknown[0]}'; there are {', '.join(kinds)}")
        places = [place for _, place in held_out if place not in PLACES]
        if places:
            raise InvalidArgument(f"there is no place '{places[0]}'; there are {', '.join(PLACES)}")
        said = tuple(tuple(words.get(label, (label,))) for label in labels)
        asked = frozenset(Query(kinds.index(k), PLACES.index(place)) for k, place in held_out)
        return cls(tuple(labels), (*said, tuple(any_words)), asked)

    @property
    def queries(self) -> tuple[Query, ...]:
        """All of them: every class, and any, in every place."""
        pairs = itertools.product(range(len(self.class_words)), range(len(PLACES)))
        return tuple(Query(kind, place) for kind, place in pairs)

    @property
    def trained(self) -> tuple[Query, ...]:
        """Those that are not held out."""
        return tuple(query for query in self.queries if query not in self.held_out)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every known word in lower case; a word's number is its place plus one."""
        texts = (*itertools.chain(*self.class_words), *itertools.chain(*_PLACE_WORDS.values()))
        return tuple(dict.fromkeys(word for text in texts for word in _split(text)))

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each word, with and without a punctuation mark after it."""
        words = tuple(enumerate(self.vocabulary, 1))
        return {word + mark: number for mark in _MARKS for number, word in words}

    def phrases(self, query: Query) -> tuple[str, ...]:
        """Returns every way to say a query; the plainest is the first."""
        places = _PLACE_WORDS[PLACES[query.place]]
        pairs = itertools.product(self.class_words[query.kind], places)
        return tuple(f"{kind} {place}".strip() for kind, place in pairs)

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Returns INT64 ``[len(texts), MAX_WORDS]``; what is not known is ``PAD``."""
        numbers = self.numbers
        out = np.full((len(texts), MAX_WORDS), PAD, dtype=np.int64)
        for row, text in enumerate(texts):
            found = [numbers.get(word, PAD) for word in _split(text)][:MAX_WORDS]
            out[row, : len(found)] = found
        return out


def _split(text: str) -> list[str]:
    """Splits at spaces, in lower case of ASCII: what ONNX Runtime's operators do."""
    return [word for word in text.translate(_LOWER).split(" ") if word]
