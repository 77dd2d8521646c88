"""The runtime of platform ``torch`` and its session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crossfade.runtimes.checked_options import options_of
from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed, NotFound
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    Artifact,
    Session,
    Signature,
    Tensor,
    Tensors,
)
from crossfade.runtimes.exported_program import archive, failure
from crossfade.runtimes.exported_program.signature import Bound, bind
from crossfade.runtimes.extras import require
from crossfade.runtimes.memory import give_back

if TYPE_CHECKING:
    from crossfade.runtimes.exported_program.options import ExportedProgramOptions

_BF16 = NUMPY["BF16"]


class ExportedProgramRuntime:
    """Opens ``model.pt2``."""

    platform: ClassVar[str] = "torch"
    options: ClassVar[str] = "crossfade.runtimes.exported_program.options:ExportedProgramOptions"

    def estimate(self, artifact: Artifact) -> int:
        """Three times the file, and 64 MiB for the graph.

        PyTorch itself (about 250 MB, once a process) is not in it.
        """
        return 3 * artifact.path.stat().st_size + (64 << 20)

    def load(self, artifact: Artifact) -> Session:
        """See ``Runtime.load``; pickled code is refused before PyTorch sees the file."""
        options: ExportedProgramOptions = options_of(artifact.options, self.options)
        path = artifact.path
        if path.suffix != ".pt2":
            raise LoadFailed(
                f"{path.name} is TorchScript or a pickled model, which can run any code: save the"
                " model with torch.export.save(torch.export.export(model.eval(), inputs),"
                " 'model.pt2')"
            )
        torch = require("torch", "torch", "a PyTorch program")
        require("torch.export", "torch", "a PyTorch program")
        try:
            with path.open("rb") as file:
                archive.check(file, path, torch)
                file.seek(0)
                program = torch.export.load(file)
            module = program.module(check_guards=False)
        except LoadFailed:
            raise
        except Exception as error:
            raise failure.of_load(error, path) from error
        return ExportedProgramSession(torch, module, program, options)


class ExportedProgramSession:
    """One program. Thread-safe: its weights are only read."""

    def __init__(
        self, torch: Any, module: Any, program: Any, options: ExportedProgramOptions
    ) -> None:
        self._torch = torch
        self._module = module
        self._threads = options.intra_op_threads
        self._tree = torch.utils._pytree
        self._in_spec = program.call_spec.in_spec
        self._bound: Bound = bind(program, options.output_names)
        kept = (*program.state_dict.values(), *program.constants.values())
        self._kept = {t.untyped_storage().data_ptr() for t in kept if torch.is_tensor(t)}
        self.signatures: Mapping[str, Signature] = {DEFAULT_SIGNATURE: self._bound.signature}

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        """See ``Session.run``."""
        if signature not in self.signatures:
            raise NotFound(f"a PyTorch program has one signature, {DEFAULT_SIGNATURE}")
        names = [spec.name for spec in self._bound.signature.outputs]
        if unknown := [name for name in outputs if name not in names]:
            raise InvalidArgument(f"the program has no output '{unknown[0]}'")
        if inputs.keys() != {spec.name for spec in self._bound.signature.inputs}:
            raise InvalidArgument(
                "the program's inputs are"
                f" {', '.join(spec.name for spec in self._bound.signature.inputs)}"
            )
        leaves = [
            constant if name is None else self._tensor(name, inputs[name])
            for name, constant in self._bound.leaves
        ]
        try:
            # A thread's own setting, and whose thread this is nobody knows.
            self._torch.set_num_threads(self._threads)
            arguments, keywords = self._tree.tree_unflatten(leaves, self._in_spec)
            with self._torch.inference_mode():
                returned = self._tree.tree_leaves(self._module(*arguments, **keywords))
        except Exception as error:
            raise failure.of_run(error) from error
        found = {
            name: self._array(tensor)
            for name, tensor in zip(self._bound.outputs, returned, strict=True)
            if name is not None and (not outputs or name in outputs)
        }
        return {name: found[name] for name in outputs or names}

    def close(self) -> None:
        """See ``Session.close``."""
        del self._module, self._in_spec
        give_back()

    def _tensor(self, name: str, array: Tensor) -> Any:
        """A copy: programs may write into what they get, and read-only arrays are no tensors."""
        spec = next(spec for spec in self._bound.signature.inputs if spec.name == name)
        if array.dtype != NUMPY[spec.dtype]:
            raise InvalidArgument(f"input '{name}' is not {spec.dtype}")
        copy = np.array(array, order="C")
        if array.dtype == _BF16:
            return self._torch.from_numpy(copy.view(np.int16)).view(self._torch.bfloat16)
        return self._torch.from_numpy(copy)

    def _array(self, tensor: Any) -> Tensor:
        if tensor.untyped_storage().data_ptr() in self._kept:  # a weight that is given away
            tensor = tensor.clone()
        tensor = tensor.detach().contiguous()
        if tensor.dtype == self._torch.bfloat16:
            array: Tensor = tensor.view(self._torch.int16).numpy().view(_BF16)
            return array
        found: Tensor = tensor.numpy()
        return found
