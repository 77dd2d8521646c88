"""The runtime of platform ``python``: a class called ``Model`` in ``model.py``.

    import numpy as np
    from crossfade.runtimes.core.model import Signature, TensorSpec

    class Model:
        def __init__(self, artifact):      # path, name, version, options
            x, y = (TensorSpec(n, "FP32", (-1, 3)) for n in "xy")
            self.signatures = {"serving_default": Signature.derive([x], [y])}

        def run(self, inputs, signature, outputs):
            return {"y": np.sqrt(inputs["x"])}

``close`` and ``stream`` may be there; ``run`` is called from several threads at the same time.
"""

from __future__ import annotations

import logging
import sys
import types
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from crossfade.runtimes import trust
from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import (
    CrossfadeError,
    Internal,
    InvalidArgument,
    LoadFailed,
    NotFound,
)
from crossfade.runtimes.core.model import Artifact, Session, Signature, Tensors, TensorSpec
from crossfade.runtimes.python_model.answers import checked

_log = logging.getLogger(__name__)
_BYTES = 64 * 1024 * 1024


class PythonRuntime:
    """Opens ``model.py`` in a trusted folder."""

    platform: ClassVar[str] = "python"

    def estimate(self, artifact: Artifact) -> int:
        """64 MiB: what code will take, nobody can tell."""
        return _BYTES

    def load(self, artifact: Artifact) -> Session:
        """Runs the file and makes its ``Model``."""
        code = trust.read(artifact.path)
        name = f"crossfade_model_{uuid.uuid4().hex}"
        module = types.ModuleType(name)
        module.__file__ = str(artifact.path)
        sys.modules[name] = module  # where dataclasses and others look themselves up
        try:
            session = _session(module, code, artifact)
        except BaseException:
            del sys.modules[name]
            raise
        return session


def _session(module: types.ModuleType, code: bytes, artifact: Artifact) -> Session:
    try:
        exec(compile(code, str(artifact.path), "exec"), module.__dict__)
    except CrossfadeError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(error, artifact, "cannot be run") from error
    kind = getattr(module, "Model", None)
    if not isinstance(kind, type):
        if hasattr(module, "TritonPythonModel"):
            raise LoadFailed(
                f"{artifact.path.name} is for Triton's Python backend: give it a class Model with"
                " signatures and run(inputs, signature, outputs), which take and give numpy arrays"
            )
        raise LoadFailed(f"{artifact.path.name} has no class Model")
    try:
        model = kind(artifact)
        signatures = _signatures(model, artifact)
    except CrossfadeError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(error, artifact, "cannot make its Model") from error
    session = StreamingPythonSession if hasattr(model, "stream") else PythonSession
    return session(module.__name__, model, signatures)


def _failed(error: BaseException, artifact: Artifact, what: str) -> LoadFailed:
    """The administrator gets the kind and an id; the text may hold anything."""
    hidden = Internal.hide(error, _log, f"loading {artifact.name}")
    where = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
    return LoadFailed(
        f"{artifact.path.name} {what}: {type(error).__name__}{where}; {hidden.message}"
    )


def _signatures(model: Any, artifact: Artifact) -> Mapping[str, Signature]:
    file = artifact.path.name
    if not callable(getattr(model, "run", None)):
        raise LoadFailed(f"{file}: its Model has no method run(inputs, signature, outputs)")
    found = getattr(model, "signatures", None)
    if not isinstance(found, Mapping) or not found:
        raise LoadFailed(f"{file}: its Model has no signatures, a dict of Signature by name")
    for name, signature in found.items():
        sides = (signature.inputs, signature.outputs) if isinstance(signature, Signature) else ()
        if not isinstance(name, str) or not sides or not all(sides):
            raise LoadFailed(f"{file}: signature '{name}' is no Signature with inputs and outputs")
        for spec in (spec for side in sides for spec in side):
            if not isinstance(spec, TensorSpec) or spec.dtype not in NUMPY:
                raise LoadFailed(
                    f"{file}: signature '{name}' has a tensor that is no TensorSpec of a known"
                    f" dtype; one of {', '.join(NUMPY)}"
                )
    return dict(found)


class PythonSession:
    """A ``Model`` of an operator's own. As thread-safe as its code."""

    def __init__(self, module: str, model: Any, signatures: Mapping[str, Signature]) -> None:
        self._module = module
        self._model = model
        self.signatures = signatures

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        """See ``Session.run``; what the code raises is logged, the client gets an id."""
        found, names = self._asked(inputs, signature, outputs)
        try:
            returned = self._model.run(inputs, signature, names)
        except CrossfadeError:
            raise
        except (Exception, SystemExit) as error:
            raise Internal.hide(error, _log, "the code of a Python model") from error
        return checked(returned, found, names, inputs)

    def close(self) -> None:
        """See ``Session.close``."""
        try:
            if hasattr(self._model, "close"):
                self._model.close()
        finally:
            del self._model
            sys.modules.pop(self._module, None)

    def _asked(
        self, inputs: Tensors, signature: str, outputs: Sequence[str]
    ) -> tuple[Signature, tuple[str, ...]]:
        found = self.signatures.get(signature)
        if found is None:
            raise NotFound(f"the model's signatures are {', '.join(self.signatures)}")
        names = tuple(spec.name for spec in found.outputs)
        if unknown := [name for name in outputs if name not in names]:
            raise InvalidArgument(f"the model has no output '{unknown[0]}'")
        needed = {spec.name for spec in found.inputs if not spec.optional}
        if not needed <= inputs.keys() <= {spec.name for spec in found.inputs}:
            raise InvalidArgument(
                f"the model's inputs are {', '.join(spec.name for spec in found.inputs)}"
            )
        return found, tuple(outputs) or names


class StreamingPythonSession(PythonSession):
    """A ``Model`` that has ``stream``, too."""

    def stream(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Iterator[Tensors]:
        """See ``StreamingSession.stream``."""
        found, names = self._asked(inputs, signature, outputs)
        # Each response has rows of its own.
        alone = Signature(found.inputs, found.outputs, False, found.method)
        try:
            for returned in self._model.stream(inputs, signature, names):
                yield checked(returned, alone, names, inputs)
        except CrossfadeError:
            raise
        except (Exception, SystemExit) as error:
            raise Internal.hide(error, _log, "the code of a Python model") from error
