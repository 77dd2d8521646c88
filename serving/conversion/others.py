"""A JSON file with values for the inputs beside the images: what is asked of them, and how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument, NotFound

_LARGEST_BYTES: Final = 16 << 20


def read(path: Path) -> Mapping[str, Sequence[Any]]:
    """Returns each input's rows, as they are written.

    Raises:
        NotFound: it cannot be read.
        InvalidArgument: it is no JSON object of lists.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise NotFound(f"'{path.name}' cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST_BYTES:
        raise InvalidArgument(f"'{path.name}' is larger than {_LARGEST_BYTES >> 20} MiB")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidArgument(f"'{path.name}' is no JSON that can be read") from None
    if not isinstance(found, dict) or not all(isinstance(r, list) and r for r in found.values()):
        raise InvalidArgument(
            f"'{path.name}' must be a JSON object: for each input beside the images a list of rows"
        )
    return found
