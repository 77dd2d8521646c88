"""The way of one run at a time to a worker: a socket, and memory for its tensors."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from crossfade.runtimes.core.errors import InvalidArgument, ResourceExhausted
from crossfade.runtimes.core.model import Tensors
from crossfade.runtimes.isolated import signatures
from crossfade.runtimes.isolated.arena import Arena, Misplaced, Place
from crossfade.runtimes.isolated.frames import Frames


class Lane:
    """The server's end. Used by one thread at a time.

    Attributes:
        there: the worker's end of the socket, to be closed once the worker has it.
        passed: the descriptors that the worker gets.
        owed: answers that nobody waited for and that are still to come.
    """

    def __init__(self) -> None:
        here, self.there = socket.socketpair()
        self._frames = Frames(here)
        self._arena = Arena.create()
        self.passed = (self.there.fileno(), self._arena.descriptor)
        self.owed = 0

    def ask(
        self, inputs: Tensors, signature: str, outputs: Sequence[str], until_s: float | None
    ) -> Tensors:
        """See ``Session.run``; waits until ``until_s`` (``time.monotonic()``) at most.

        Raises:
            TimeoutError: the answer did not come in time; it is dropped when it does.
            Broken: the worker has ended.
            Misplaced: the worker answered what cannot be.
        """
        while self.owed:
            self._frames.receive(until_s)
            self.owed -= 1
        places, end = self._write(inputs)
        self._frames.send(
            {"inputs": places, "end": end, "signature": signature, "outputs": list(outputs)}
        )
        self.owed += 1
        told = self._frames.receive(until_s)
        self.owed -= 1
        if "error" in told:
            raise signatures.error_of(told["error"])
        found = told.get("outputs")
        if not isinstance(found, list):
            raise Misplaced("no outputs")
        results = self._arena.read(found, copy=True)
        self._arena.trim()
        return results

    def close(self) -> None:
        """Closes both; what was read is the readers' own."""
        self._frames.close()
        self.there.close()
        self._arena.close()

    def _write(self, inputs: Tensors) -> tuple[list[Place], int]:
        try:
            return self._arena.write(inputs)
        except KeyError as error:
            raise InvalidArgument("an input has a dtype that no model takes") from error
        except (OSError, MemoryError) as error:
            raise ResourceExhausted(
                "there is not enough memory for a run of these sizes"
            ) from error
