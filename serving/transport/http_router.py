"""Finds the route of a request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from crossfade.serving.transport.calls import Route
from crossfade.serving.transport.http_answer import Refused

# A pattern of these characters only matches itself.
_LITERAL: Final = re.compile(r"[\w/~:%-]*", re.ASCII)
_NO_GROUPS: Final[Mapping[str, str]] = {}
Methods = dict[str, Route]


class HttpRouter:
    """The routes of one host. Immutable; a literal path costs one look-up in a dictionary."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._literal: dict[str, Methods] = {}
        by_pattern: dict[str, Methods] = {}
        for route in routes:
            is_literal = _LITERAL.fullmatch(route.pattern)
            table = self._literal if is_literal else by_pattern
            methods = table.setdefault(route.pattern, {})
            if route.method in methods:
                raise ValueError(f"two routes for {route.method} {route.pattern}")
            methods[route.method] = route
        self._patterns = [(re.compile(text), methods) for text, methods in by_pattern.items()]

    def find_any(self, path: str) -> tuple[Route, Mapping[str, str]]:
        """Returns the POST route of a path, or else its GET route; raises as ``find`` does."""
        try:
            return self.find("POST", path)
        except Refused as error:
            if error.status != 405:
                raise
            return self.find("GET", path)

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """Returns the route and the pattern's named groups, those that took part in the match.

        HEAD finds the GET route.

        Raises:
            Refused: no such path (404), or not with this method (405).
        """
        wanted = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        if methods := self._literal.get(path):
            if route := methods.get(wanted):
                return route, _NO_GROUPS
            allowed.update(methods)
        for pattern, methods in self._patterns:
            if match := pattern.fullmatch(path):
                if route := methods.get(wanted):
                    groups = match.groupdict()
                    return route, {name: text for name, text in groups.items() if text is not None}
                allowed.update(methods)
        if not allowed:
            raise Refused(404, "no such path")
        if "GET" in allowed:
            allowed.add("HEAD")
        raise Refused(
            405, "this path does not take this method", (("Allow", ", ".join(sorted(allowed))),)
        )
