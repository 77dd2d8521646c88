"""What each protocol does for a remote session: describe the model, and run it once."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from google.protobuf.message import DecodeError

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument
from crossfade.runtimes.core.model import Signature, Tensor, Tensors
from crossfade.serving.remote.credentials import Credentials
from crossfade.serving.remote.failures import garbage
from crossfade.serving.remote.options import RemoteOptions
from crossfade.serving.tensors.raw import RawTensor


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a model is.

    Attributes:
        model: its name there.
        folder: of the files that ``options`` names.
    """

    options: RemoteOptions
    model: str
    folder: Path
    credentials: Credentials


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """One run.

    Attributes:
        name: of the signature.
        outputs: names wanted, at least one.
        until_s: ``time.monotonic()`` value by which the answer must be there.
    """

    inputs: Tensors
    name: str
    signature: Signature
    outputs: Sequence[str]
    until_s: float


class Contract(Protocol):
    """One protocol's client for one model. Thread-safe."""

    def describe(self, until_s: float) -> Mapping[str, Signature]:
        """Reads the model's signatures.

        Raises:
            FarError: the server does not say.
        """
        ...

    def infer(self, ask: Ask) -> Sequence[RawTensor]:
        """Runs the model once; what comes back is not checked against the signature.

        Raises:
            FarError: there is no answer.
            InvalidArgument: the protocol cannot carry these values.
        """
        ...

    def close(self) -> None:
        """Closes the connections."""
        ...


def texts(array: Tensor, encode: Callable[[bytes], Any]) -> Any:
    """BYTES as nested lists for JSON, each element as ``encode`` has it."""
    encoded = np.empty(array.shape, np.object_)
    encoded.reshape(-1)[:] = [encode(element) for element in array.ravel()]
    return encoded.tolist()


def b64(element: bytes) -> dict[str, str]:
    """The object by which TensorFlow's JSON carries any bytes."""
    return {"b64": base64.b64encode(element).decode()}


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Within it, whatever fails is the answer's fault."""
    try:
        yield
    except (
        CrossfadeError,
        DecodeError,
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
    ) as error:
        raise garbage(f"{what} cannot be read: {error}") from error


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Within it, what the protocol cannot carry is the request's fault."""
    try:
        yield
    except CrossfadeError as error:
        raise InvalidArgument(error.message) from error
