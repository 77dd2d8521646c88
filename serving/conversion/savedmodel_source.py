"""A SavedModel made ready for a converter: checked, frozen, and cut where that was asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, Signature, TensorSpec
from crossfade.runtimes.savedmodel.options import SavedModelOptions
from crossfade.serving.conversion import cut, tensorflow_graph
from crossfade.serving.conversion.job import Job
from crossfade.serving.conversion.tensorflow_graph import Frozen

Say = Callable[[str], None]
# What a cut leaves in the scratch folder for the proof: the model behind it, what was cut off.
BEHIND, FRONT = "behind", "front"


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """What a converter starts from.

    Attributes:
        name: the source's signature.
        cut: the input that takes the decoded values, where the graph was cut.
    """

    frozen: Frozen
    name: str
    signature: Signature
    cut: TensorSpec | None = None


def prepare(job: Job, say: Say) -> Prepared:
    """Names what cannot be converted, or gives the graph that can.

    Raises:
        InvalidArgument: it has operations that no converter can do; with what to do instead.
        LoadFailed: TensorFlow cannot load it.
    """
    path, tags = Path(job.source), SavedModelOptions.read(job.options).tags
    say("looking for operations that cannot be converted")
    custom = tensorflow_graph.unknown_operations(path)
    if custom:
        raise InvalidArgument(
            "the model has custom operations, which TensorFlow alone does not have and which"
            f" cannot be converted: {', '.join(custom)}"
        )
    name = job.signature or DEFAULT_SIGNATURE
    say(f"freezing signature '{name}'")
    frozen = tensorflow_graph.freeze(path, name, tags)
    nodes = frozen.nodes()
    found = cut.impossible(nodes, cut.needed(nodes, frozen.outputs.values()))
    place = _place(frozen, nodes) if found else None
    if found and not (job.after_decode and place):
        raise InvalidArgument(_advice(job, name, sorted(found), place))
    if place is None:
        return Prepared(frozen, name, signature_of(frozen))
    behind, front, spec = _cut(frozen, nodes, place)
    say(f"cutting after the decoding, where it is {spec.dtype} {list(spec.shape or ())}")
    for folder, part in ((BEHIND, behind), (FRONT, front)):
        tensorflow_graph.write(part, job.scratch / folder)
    return Prepared(behind, name, signature_of(behind), spec)


def signature_of(frozen: Frozen) -> Signature:
    """The signature of a graph, as its runtime would read it."""
    return Signature.derive(
        [frozen.spec(name, tensor) for name, tensor in frozen.inputs.items()],
        [frozen.spec(name, tensor) for name, tensor in frozen.outputs.items()],
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    name: str
    tensor: str
    spec: TensorSpec


def _place(frozen: Frozen, nodes: dict[str, cut.Node]) -> _Place | None:
    """Where the text input has become numbers of known shape, and all numbers follow from it."""
    texts = {n: t for n, t in frozen.inputs.items() if frozen.spec(n, t).dtype == "BYTES"}
    numbers = [t for n, t in frozen.outputs.items() if frozen.spec(n, t).dtype != "BYTES"]
    for name, tensor in texts.items():
        if not numbers or tensor.partition(":")[0] not in cut.needed(nodes, numbers):
            continue
        found = cut.find_cut(nodes, texts.values(), numbers, lambda t: _fits(frozen, t))
        if found is not None:
            return _Place(name, found, frozen.spec(name, found))
    return None


def _fits(frozen: Frozen, tensor: str) -> bool:
    try:
        spec = frozen.spec("", tensor)
    except CrossfadeError:
        return False
    shape = spec.shape
    return spec.dtype != "BYTES" and shape is not None and len(shape) > 1 and min(shape[1:]) > 0


def _cut(
    frozen: Frozen, nodes: dict[str, cut.Node], place: _Place
) -> tuple[Frozen, Frozen, TensorSpec]:
    edge = frozenset({place.tensor})
    starts = {tensor.partition(":")[0] for tensor in frozen.inputs.values()}
    outputs = {
        name: tensor
        for name, tensor in frozen.outputs.items()
        if frozen.spec(name, tensor).dtype != "BYTES"
        and not cut.needed(nodes, [tensor], edge) & starts
    }
    spec = dataclasses.replace(place.spec, shape=(-1, *(place.spec.shape or ())[1:]))
    before = cut.needed(nodes, [place.tensor])
    needed = {n: t for n, t in frozen.inputs.items() if t.partition(":")[0] in before}
    return (
        Frozen(frozen.graph, {place.name: place.tensor}, outputs),
        Frozen(frozen.graph, needed, {place.name: place.tensor}),
        spec,
    )


def _advice(job: Job, name: str, found: list[str], place: _Place | None) -> str:
    text = (
        f"signature '{name}' has operations that cannot be converted to {job.target}:"
        f" {', '.join(found)}. "
    )
    others = _others(job, name)
    ways = []
    if others:
        ways.append(f"convert the signature {' or '.join(others)} instead (--signature)")
    if place is not None:
        shape = list(place.spec.shape or ())
        ways.append(
            f"cut the graph behind them (--after-decode): '{place.name}' is then"
            f" {place.spec.dtype} {shape}, decoded before it reaches the model"
        )
    if not ways:
        ways.append(
            "export the model with a signature that takes numbers, decoding left out; the server"
            " or the client then decodes"
        )
    return text + "Either " * (len(ways) > 1) + ", or ".join(ways)


def _others(job: Job, name: str) -> list[str]:
    """Other signatures that take only numbers."""
    from crossfade.runtimes import registry
    from crossfade.runtimes.core.model import Artifact

    session = registry.create(job.platform).load(
        Artifact(Path(job.source), job.name, 1, 1, job.options)
    )
    try:
        return [
            f"'{other}'"
            for other, signature in session.signatures.items()
            if other != name and all(spec.dtype != "BYTES" for spec in signature.inputs)
        ]
    finally:
        session.close()
