"""What can be wrong with a specification of transforms, or with a table given to it.

InvalidArgument
├── InvalidSpec        a key, value or reference is wrong
│   ├── UnknownTransform   a kind of transform that does not exist here
│   └── UnknownVersion     written by a newer release
└── WrongTable         the table is not what the specification or the reader expects
"""

from __future__ import annotations

from crossfade.runtimes.core.errors import InvalidArgument


class InvalidSpec(InvalidArgument):
    """The specification contradicts itself or its schema."""


class UnknownTransform(InvalidSpec):
    """It asks for a transform that does not exist here; none is ever left out silently."""


class UnknownVersion(InvalidSpec):
    """It was written in a format that this release does not know."""


class WrongTable(InvalidArgument):
    """A column is missing, of another kind, or not as long as the others."""
