"""The rows that an 8-bit model is calibrated on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, Artifact, Signature
from crossfade.serving.conversion import data, others
from crossfade.serving.conversion.data import Rows
from crossfade.serving.conversion.job import Job
from crossfade.serving.conversion.savedmodel_source import FRONT


def rows(job: Job, signature: Signature, say: Callable[[str], None]) -> Rows:
    """Reads the given data for the signature that is quantised.

    Raises:
        InvalidArgument: no data were given, or they do not fit.
    """
    if job.data is None:
        raise InvalidArgument(
            f"{job.target} is calibrated on real data: give a folder of images or an .npz (--data)"
        )
    if not (job.scratch / FRONT).is_dir():
        found = given(job, signature)
    else:
        say("decoding the data as the model does")
        found = decoded(job)
    say(f"calibrating on {found.origin}")
    return found


def given(job: Job, signature: Signature) -> Rows:
    """Reads what the user gave as inputs of a signature; raises as ``data.read``."""
    values = others.read(Path(job.others)) if job.others is not None else None
    return data.read(Path(job.data or ""), signature, job.value_range, others=values)


def decoded(job: Job) -> Rows:
    """The given data as the part of the graph that was cut off makes them."""
    session = registry.create("tensorflow_savedmodel").load(
        Artifact(job.scratch / FRONT, job.name, 1, options={"intra_op_threads": 1})
    )
    try:
        files = given(job, session.signatures[DEFAULT_SIGNATURE])
        runs = [
            session.run(files.batch(index, index + 1), DEFAULT_SIGNATURE, ())
            for index in range(files.count)
        ]
    finally:
        session.close()
    inputs = {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}
    return Rows(inputs, files.origin, names=files.names)
