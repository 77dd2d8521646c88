"""What ``options`` may hold for a SavedModel."""

from __future__ import annotations

from typing import Annotated

import pydantic

from crossfade.runtimes.options import Options

Threads = Annotated[int, pydantic.Field(ge=1, le=1024)] | None


class SavedModelOptions(Options):
    """Options of platform ``tensorflow_savedmodel``.

    Attributes:
        tags: the MetaGraph to load, named by all its tags.
        intra_op_threads, inter_op_threads: sizes of TensorFlow's pools. They belong to the
            process: the first SavedModel loaded sets them for all; ``None`` is one a core.
        op_libraries: custom ops to load first: paths of shared libraries, or packages whose
            ``ops/*.so`` are meant. Those of struct2tensor are found by themselves.
    """

    tags: list[str] = pydantic.Field(default_factory=lambda: ["serve"], min_length=1)
    intra_op_threads: Threads = None
    inter_op_threads: Threads = None
    op_libraries: list[str] = pydantic.Field(default_factory=list)
