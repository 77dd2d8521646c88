"""Which ensembles depend on which models, and what that asks of the order of things."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.lifecycle.ensembles import Ensembles
from crossfade.serving.lifecycle.versions import Entry, Found, Version


class Dependents:
    """The ensembles among the models that are to be served. Thread-safe.

    Args:
        entries: all models by name; it may grow.
        ensembles: says what members are to their ensembles.
    """

    def __init__(self, entries: Mapping[str, Entry], ensembles: Ensembles) -> None:
        self._entries = entries
        self._ensembles = ensembles

    def of(self, name: str) -> list[tuple[str, Found]]:
        """The ensembles that a model is a member of, with what their files ask for."""
        return [
            (entry.name, entry.wanted)
            for entry in list(self._entries.values())
            if entry.wanted is not None and name in names_of(entry.wanted.files.config)
        ]

    def bound(self, name: str, found: Found) -> Found:
        """A model's files; those of an ensemble count as others where its members are others.

        Raises:
            LoadFailed: the ensemble is a member of itself.
        """
        files, section = found.files, found.files.config.ensemble
        if section is None:
            return found
        check_cycle(name, self._members)
        mark = self._ensembles.mark(section)
        versions = {
            number: dataclasses.replace(one, fingerprint=f"{one.fingerprint}-{mark}")
            for number, one in files.versions.items()
        }
        return dataclasses.replace(found, files=dataclasses.replace(files, versions=versions))

    def is_current(self, version: Version) -> bool:
        """Whether the members of an ensemble are still those that the version was built for."""
        section = version.found.files.config.ensemble if version.found else None
        return section is None or version.fingerprint.endswith(self._ensembles.mark(section))

    def _members(self, name: str) -> frozenset[str]:
        entry = self._entries.get(name)
        wanted = entry.wanted if entry else None
        return names_of(wanted.files.config) if wanted else frozenset()


def order(found: Mapping[str, Found]) -> Iterator[list[str]]:
    """The names in groups, members before the ensembles that they are in; see ``waves``."""
    return waves({name: names_of(one.files.config) for name, one in found.items()})


def names_of(config: ModelConfig) -> frozenset[str]:
    """Models that are members; none where it is no ensemble."""
    section = config.ensemble
    return frozenset(one.model for one in section.members) if section else frozenset()


def waves(members: Mapping[str, Collection[str]]) -> Iterator[list[str]]:
    """Names in groups of which each needs only those before it; cycles come last, in one group.

    Args:
        members: by name; those that are no names themselves do not count.
    """
    left = {name: set(needed) & members.keys() for name, needed in members.items()}
    while left:
        ready = [name for name, needed in left.items() if not needed & left.keys()] or list(left)
        yield ready
        for name in ready:
            del left[name]


def check_cycle(name: str, members: Callable[[str], Collection[str]]) -> None:
    """Raises LoadFailed where an ensemble is, at any depth, a member of itself.

    Args:
        name: of the ensemble.
        members: of any model.
    """
    ways: list[tuple[str, ...]] = [(name,)]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        for member in sorted(members(way[-1])):
            if member == name:
                listed = " -> ".join((*way, name))
                raise LoadFailed(f"the ensemble is a member of itself: {listed}")
            if member not in seen:
                seen.add(member)
                ways.append((*way, member))
