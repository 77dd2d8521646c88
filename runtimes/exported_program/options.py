"""The options of platform ``torch``."""

from __future__ import annotations

from typing import Annotated

import pydantic

from crossfade.runtimes.options import Options


class ExportedProgramOptions(Options):
    """How a program is run.

    Attributes:
        intra_op_threads: of one run.
        output_names: for programs that return a tensor or a tuple, which have no names to give.
    """

    intra_op_threads: Annotated[int, pydantic.Field(ge=1, le=1024)] = 1
    output_names: list[Annotated[str, pydantic.Field(min_length=1)]] = pydantic.Field(
        default_factory=list
    )
