"""TensorFlow's exceptions, translated; node names and stack traces stay in the log."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import CrossfadeError, Internal, InvalidArgument, LoadFailed
from crossfade.runtimes.reason import one_line

_log = logging.getLogger(__name__)
_NOISE: Final = re.compile(
    r"Graph execution error:|Detected at node .*|Node: '.*|\[\[\{\{node .*|Original stack trace.*",
)
_NO_OP: Final = re.compile(r"Op type not registered '(\w+)'")
_TAGS: Final = re.compile(r"with available tags '(.*?)'\. To inspect")


def plain(error: BaseException) -> str:
    """What a TensorFlow error says, without where in the graph."""
    return _NOISE.sub("", str(error)).strip()


def lacks_op(error: Exception) -> bool:
    """Whether the graph has an op that this TensorFlow does not know."""
    return _NO_OP.search(str(error)) is not None


def of_load(error: Exception, path: Path, tags: list[str]) -> LoadFailed:
    """Explains why a SavedModel could not be loaded."""
    if isinstance(error, LoadFailed):
        return error
    text = str(error)
    if found := _NO_OP.search(text):
        return LoadFailed(
            f"the model needs the op '{found[1]}', which this TensorFlow does not have "
            "(AutoML tabular exports need those of struct2tensor: "
            "isolation: {process: true, environment: automl-tabular})"
        )
    if found := _TAGS.search(text):
        there = re.sub(r"[^\w, ]", "", found[1])
        if not there:
            return LoadFailed("the SavedModel is empty")
        return LoadFailed(f"no graph is tagged {'+'.join(tags)}; there is: {there} (option 'tags')")
    return LoadFailed(f"TensorFlow cannot load the model: {one_line(plain(error), path)}")


def of_run(error: Exception, tf: Any) -> CrossfadeError:
    """Translates what a run raised; only refused values and shapes are the request's fault."""
    # What a graph cannot parse as the messages that it takes is lost data in TensorFlow's words.
    if isinstance(error, tf.errors.InvalidArgumentError | tf.errors.DataLossError):
        return InvalidArgument(f"the model refused the inputs: {one_line(plain(error))}")
    if isinstance(error, UnicodeDecodeError):
        # TensorFlow's message quotes the bytes that it refused, and fails over that in Python.
        return InvalidArgument("the model refused the inputs: a value cannot be parsed")
    if isinstance(error, ValueError) and str(error).startswith("Cannot feed value"):
        return InvalidArgument("an input has a shape that the model does not take")
    return Internal.hide(error, _log, "a TensorFlow run")
