"""The two members of a fade: how an operator writes them, and what they mean."""

from __future__ import annotations

from typing import Final

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument, NotFound, escape
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.lifecycle.manager import Manager
from crossfade.serving.repository.layout import check_name

_VERSION_DIGITS: Final = 18


def read(text: str, name: str, manager: Manager) -> ModelRef:
    """Reads a member of the fade of ``name``.

    It is a version (``3``) or a label (``automl``) of that model, or another model's name
    (``flowers_custom``, ``flowers_custom:3``, ``flowers_custom@stable``). A word that is both is
    the label.

    Raises:
        NotFound: there is no such label and no such model.
        FailedPrecondition: there is such a version, which is not served.
        InvalidArgument: it is none of these.
    """
    if text.isascii() and text.isdigit():
        text = f"{name}:{text}"
    elif ":" not in text and "@" not in text:
        for ref in (ModelRef(name, label=text), ModelRef(check_name(text))):
            if _is_known(ref, manager):
                return ref
        raise NotFound(
            f"'{escape(text)}' is neither a label of model '{escape(name)}' nor a model: give a "
            "version number, a label or a model's name, as `crossfade models` lists them"
        )
    ref = parse(text)
    if ref.version is not None and manager.leaves_out(ref.name, ref.version):
        raise FailedPrecondition(
            f"version {ref.version} of '{ref.name}' is there but not served: its version policy "
            "leaves it out (by default all but the newest); put `version_policy: all`, or a label "
            "for the version, into its model.yaml"
        )
    if not _is_known(ref, manager):
        raise NotFound(f"there is no '{escape(text)}': `crossfade models` lists what there is")
    return ref


def parse(text: str) -> ModelRef:
    """Reads what ``written`` wrote; raises InvalidArgument if it did not."""
    name, colon, version = text.partition(":")
    if colon:
        if not (version.isascii() and version.isdigit() and len(version) <= _VERSION_DIGITS):
            raise InvalidArgument(f"'{escape(text)}' does not end in a version number")
        return ModelRef(check_name(name), version=int(version))
    name, at, label = text.partition("@")
    if at and not label:
        raise InvalidArgument(f"'{escape(text)}' names no label")
    return ModelRef(check_name(name), label=label or None)


def written(ref: ModelRef) -> str:
    """A member as it is kept and shown: ``flowers:3``, ``flowers@automl`` or ``flowers``."""
    if ref.version is not None:
        return f"{ref.name}:{ref.version}"
    return ref.name if ref.label is None else f"{ref.name}@{ref.label}"


def _is_known(ref: ModelRef, manager: Manager) -> bool:
    try:
        manager.can_answer(ref)
    except (NotFound, InvalidArgument):
        return False
    return True
