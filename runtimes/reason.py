"""Makes a library's error text fit for a client: one line, no path, no control codes, short."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_LIMIT: Final = 300
# A rooted path: not the middle of a word ("and/or"), not part of a URL.
_ROOTED: Final = re.compile(
    r"(?<![\w:/.\\])/(?:[^\s/'\"`<>()\[\]{},;:|]+/)*([^\s/'\"`<>()\[\]{},;:|]*)"
)


def one_line(text: str | BaseException, path: Path | None = None) -> str:
    """Returns ``text`` on one line of at most 300 characters, paths cut to their last part.

    Args:
        text: what the library said.
        path: the file or folder that was loaded; it may be relative or hold spaces, so that it
            is known by name and not by its looks.
    """
    said = str(text)
    if path is not None:
        for spelled in (str(path.absolute()), str(path.resolve()), str(path)):
            for part in (f"{spelled}/", f"{Path(spelled).parent}/"):
                said = said.replace(part, "") if len(part) > 2 else said
    said = _ROOTED.sub(r"\1", said)
    said = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return said if len(said) <= _LIMIT else said[: _LIMIT - 1] + "…"
