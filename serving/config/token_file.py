"""The file that names the tokens of a server's callers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic
import yaml

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.options import Options, explain
from crossfade.serving.transport.calls import Access
from crossfade.serving.transport.tokens import Token, Tokens

Role = Literal["infer", "read", "admin"]
_Name = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class _Entry(Options):
    name: _Name
    sha256: Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]
    roles: Annotated[list[Role], pydantic.Field(min_length=1)]


class _File(Options):
    tokens: Annotated[list[_Entry], pydantic.Field(min_length=1)]


def read(path: Path) -> Tokens:
    """Reads a token file: ``tokens: [{name: ci, sha256: …, roles: [infer, read]}]``.

    Raises:
        InvalidArgument: it cannot be read, or what is wrong with it.
    """
    try:
        found = _File.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise InvalidArgument(f"the token file '{path}' cannot be read: {error.strerror}") from None
    except pydantic.ValidationError as error:
        raise InvalidArgument(f"the token file '{path}': {explain(error, _File, 'key')}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InvalidArgument(f"the token file '{path}' is not YAML") from None
    if len({entry.sha256 for entry in found.tokens}) < len(found.tokens):
        raise InvalidArgument(f"the token file '{path}' has the same token twice")
    return Tokens(
        Token(entry.name, entry.sha256, frozenset(Access(role) for role in entry.roles))
        for entry in found.tokens
    )
