"""A run's configuration: a YAML file whose head says command, time and expected result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import pydantic
import yaml

from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.runtimes.options import explain

_HEADINGS: Final = ("Command", "Expected time", "Expected result")
_LARGEST_BYTES: Final = 1 << 20


class Config(pydantic.BaseModel):
    """Base of every trainer's configuration: frozen, unknown keys are errors."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def load(cls, path: Path | None, changes: Sequence[str] = ()) -> Self:
        """Reads a file, or takes the defaults, and makes the changes of a command line.

        Args:
            path: a YAML file.
            changes: ``key=value``, ``section.key=value``; values are YAML.

        Raises:
            NotFound: there is no such file.
            InvalidArgument: one message for all faults; an unknown key names the nearest right
                one.
        """
        values: dict[str, Any] = {} if path is None else _read(path)
        for change in changes:
            _change(values, change)
        what = "key" if path is None else f"{path.name}: key"
        return cls.of(values, what)

    @classmethod
    def provenance(cls, path: Path | None, changes: Sequence[str] = ()) -> dict[str, str]:
        """Where each value is from, by dotted key: ``file`` or ``command line``.

        What is in neither is a default of the trainer's, and not in it.
        """
        found = dict.fromkeys(_keys({} if path is None else _read(path)), "file")
        found.update(dict.fromkeys((c.partition("=")[0] for c in changes), "command line"))
        return found

    @classmethod
    def of(cls, values: Mapping[str, Any], what: str = "key") -> Self:
        """Checks plain values.

        Raises:
            InvalidArgument: as for ``load``.
        """
        try:
            return cls.model_validate(dict(values))
        except pydantic.ValidationError as error:
            raise InvalidArgument(explain(error, cls, what)) from error


def head(path: Path) -> dict[str, str]:
    """What the comment at the top of a configuration file says, by its headings.

    Raises:
        InvalidArgument: a heading is missing, or nothing follows it.
    """
    lines = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    text = "\n".join(lines)
    found = {}
    for name in _HEADINGS:
        match = re.search(rf"^{name}:(.*?)(?=^(?:{'|'.join(_HEADINGS)}):|\Z)", text, re.M | re.S)
        if match is None or not match[1].strip():
            raise InvalidArgument(f"{path.name}: the comment at its top does not say '{name}: …'")
        found[name] = match[1].strip()
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise InvalidArgument(f"{path.name}: too large for a configuration")
        values = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound(f"there is no configuration '{path}'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path.name} cannot be read as text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise InvalidArgument(f"{path.name}: not YAML{where}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InvalidArgument(f"{path.name}: must hold keys and values")
    return values


def _keys(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        inner = _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else []
        keys += inner or [f"{prefix}{key}"]
    return keys


def _change(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise InvalidArgument(f"'{change}' is not of the form key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidArgument(f"'{change}': the value is not YAML") from error
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InvalidArgument(f"'{change}': '{section}' holds no keys")
        values = inner
    values[last] = value
