"""Counts the nodes that a delegate took; a model that it cannot run stays on the CPU unsaid."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_log = logging.getLogger(__name__)
DELEGATE, CPU = "delegate", "cpu"


def count(ops: Sequence[Mapping[str, Any]], outputs: Iterable[int]) -> dict[str, int]:
    """Returns how many of a graph's nodes run on the delegate and how many on the CPU.

    LiteRT lists a graph's own nodes as they were and adds a row ``DELEGATE`` for each part that
    was taken, so what still runs is what the outputs lead back to.

    Args:
        ops: rows of ``_get_ops_details()``, asked for before tensors are allocated: only then
            does XNNPACK, a delegate too, join in.
        outputs: indexes of the graph's output tensors.
    """
    own = [op for op in ops if op["op_name"] != "DELEGATE"]
    taken = [op for op in ops if op["op_name"] == "DELEGATE"]
    on_cpu = _reached([*own, *taken], outputs) & set(range(len(own)))
    return {DELEGATE: len(_reached(own, outputs)) - len(on_cpu), CPU: len(on_cpu)}


def report(nodes: Mapping[str, int], model: str, devices: Sequence[str]) -> None:
    """Logs who runs how many nodes; warns if the delegate took none."""
    where = {"model": model, "nodes": dict(nodes), "devices": list(devices)}
    if nodes[DELEGATE]:
        _log.info("nodes by where they run", extra=where)
    else:
        _log.warning(
            "the delegate took no node: the model runs on the CPU alone (is it compiled for the "
            "Edge TPU?)",
            extra=where,
        )


def _reached(ops: Sequence[Mapping[str, Any]], outputs: Iterable[int]) -> set[int]:
    """Positions of the rows that ``outputs`` lead back to; a later row replaces an earlier one."""
    makes = {int(tensor): at for at, op in enumerate(ops) for tensor in op["outputs"]}
    reached: set[int] = set()
    open_ends = [int(tensor) for tensor in outputs]
    while open_ends:
        at = makes.get(open_ends.pop())
        if at is not None and at not in reached:
            reached.add(at)
            open_ends += [int(tensor) for tensor in ops[at]["inputs"]]
    return reached
