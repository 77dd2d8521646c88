"""A SavedModel's graph with functions in the place of their calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Final

from crossfade.runtimes.core.errors import LoadFailed

CALLS: Final = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_MAX_CALL_DEPTH: Final = 64


@dataclasses.dataclass(slots=True)
class Op:
    """A node of the flat graph; inputs and outputs are tensors ``node:index``."""

    name: str
    op: str
    inputs: tuple[str, ...]
    proto: Any


class Flat:
    """The graph with functions put in the place of their calls."""

    def __init__(self, definition: Any) -> None:
        self.functions = {f.signature.name: f for f in definition.library.function}
        self.ops: dict[str, Op] = {}
        self.alias: dict[str, str] = {}
        for node in definition.node:
            inputs = tuple(self.tensor(name) for name in node.input if not name.startswith("^"))
            self.ops[node.name] = Op(node.name, node.op, inputs, node)
        self.top = tuple(self.ops.values())

    @staticmethod
    def tensor(name: str) -> str:
        """A tensor's name as it is spelled here: ``x`` is ``x:0``."""
        return name if ":" in name else f"{name}:0"

    def resolve(self, tensor: str) -> str:
        """What a tensor is, once calls and identities are looked through."""
        while True:
            if (was := self.alias.get(tensor)) is not None:
                tensor = was
                continue
            op = self.ops.get(tensor.rpartition(":")[0])
            if op is None or op.op not in {"Identity", "IdentityN", "Snapshot", "StopGradient"}:
                return tensor
            tensor = op.inputs[int(tensor.rpartition(":")[2])]

    def inline(self, tensors: Iterable[str]) -> None:
        """Inlines all calls that tensors need.

        Raises:
            LoadFailed: functions call each other without end.
        """
        waiting = [(tensor, 0) for tensor in tensors]
        seen: set[str] = set()
        while waiting:
            tensor, depth = waiting.pop()
            name = tensor.rpartition(":")[0]
            op = self.ops.get(name)
            if tensor in self.alias:
                waiting.append((self.alias[tensor], depth))
                continue
            if op is None or name in seen:
                continue
            seen.add(name)
            if op.op in CALLS or op.op in self.functions:
                if depth >= _MAX_CALL_DEPTH:
                    raise LoadFailed("the SavedModel's functions call each other without end")
                self.expand(op)
                seen.discard(name)
                if tensor in self.alias:
                    waiting.append((self.alias[tensor], depth + 1))
            else:
                waiting += [(each, depth) for each in op.inputs]

    def expand(self, call: Op) -> None:
        """Puts a function in the place of one call; raises LoadFailed without the function."""
        name = call.proto.attr["f"].func.name if call.op in CALLS else call.op
        function = self.functions.get(name)
        if function is None:
            raise LoadFailed("the SavedModel calls a function that it does not have")
        given = {
            arg.name: tensor
            for arg, tensor in zip(function.signature.input_arg, call.inputs, strict=True)
        }
        inside = {node.name: node for node in function.node_def}

        def outer(reference: str) -> str:
            node, _, rest = reference.partition(":")
            if node in given and node not in inside:
                return given[node]
            return f"{call.name}/{node}:{self._index(inside[node], rest)}"

        for node in function.node_def:
            inputs = tuple(outer(each) for each in node.input if not each.startswith("^"))
            self.ops[f"{call.name}/{node.name}"] = Op(
                f"{call.name}/{node.name}", node.op, inputs, node
            )
        for index, arg in enumerate(function.signature.output_arg):
            self.alias[f"{call.name}:{index}"] = outer(function.ret[arg.name])

    def _index(self, node: Any, rest: str) -> int:
        """The number of an output that a function spells ``argument:index``."""
        from tensorflow.python.framework import op_def_registry

        argument, _, index = rest.partition(":")
        if node.op in CALLS or node.op in self.functions:
            if node.op in CALLS:
                return int(index)
            names = [arg.name for arg in self.functions[node.op].signature.output_arg]
            return names.index(argument)
        definition = op_def_registry.get(node.op)
        before = 0
        for arg in definition.output_arg if definition is not None else ():
            if arg.name == argument:
                break
            before += node.attr[arg.number_attr].i if arg.number_attr else 1
        return before + int(index or 0)

    def needed(self, outputs: Iterable[str]) -> list[Op]:
        """The operations that tensors need, in no order."""
        waiting, seen = [self.resolve(tensor) for tensor in outputs], {}
        while waiting:
            name = waiting.pop().rpartition(":")[0]
            if name not in seen and name in self.ops:
                seen[name] = self.ops[name]
                waiting += [self.resolve(tensor) for tensor in self.ops[name].inputs]
        return list(seen.values())
