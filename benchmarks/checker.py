"""The harness's end of the checking client (`client.py`), which runs as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from crossfade.benchmarks.workspace import Workspace

ANSWER_TIMEOUT_S = 120.0


class CheckerError(Exception):
    """The checking client ended or did not answer in time."""


@dataclass(frozen=True)
class Verdict:
    """What a check of some answers found.

    Attributes:
        checked: Answers compared.
        wrong: Of those, how many were wrong or errors.
        first_error: What was wrong with the first of them.
    """

    checked: int = 0
    wrong: int = 0
    first_error: str | None = None

    def __add__(self, other: Verdict) -> Verdict:
        """The verdict of both checks together."""
        return Verdict(
            self.checked + other.checked,
            self.wrong + other.wrong,
            self.first_error or other.first_error,
        )


class Checker:
    """A checking client; a context manager, since it is a process.

    Args:
        grpc_port: Of the server on 127.0.0.1.
        models: Whose references the client reads.
        workspace: Where they are.
    """

    def __init__(self, grpc_port: int, models: Sequence[str], workspace: Workspace) -> None:
        self._command = [
            sys.executable,
            "-m",
            "crossfade.benchmarks.client",
            f"--grpc-port={grpc_port}",
            f"--workspace={workspace.root}",
            *models,
        ]
        self._checking = False

    def __enter__(self) -> Self:
        """Start the client and wait until it has read its references."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read(ANSWER_TIMEOUT_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the client."""
        self._process.kill()
        self._process.communicate()

    def wait_ready(self, models: Sequence[str], timeout_s: float) -> float | None:
        """The monotonic time at which server and models became ready, or None if too late."""
        answer = self._ask(timeout_s, action="wait_ready", models=models, timeout_s=timeout_s)
        ready_at_s: float | None = answer["ready_at_s"]
        return ready_at_s

    def check(self, model: str, calls: int) -> Verdict:
        """Compare the answers to some calls, one after the other."""
        return Verdict(**self._ask(0, action="check", model=model, calls=calls))

    def begin_check(self, model: str, duration_s: float) -> None:
        """Begin to compare answers for some seconds; `end_check` must follow."""
        self._send(action="check_for", model=model, duration_s=duration_s)
        self._checking = True

    def end_check(self) -> Verdict:
        """Wait for the end of the check that `begin_check` began, if it did."""
        if not self._checking:
            return Verdict()
        self._checking = False
        return Verdict(**self._read(ANSWER_TIMEOUT_S))

    def reply_bytes(self, model: str) -> int:
        """The size of the right reply to the load's request, its gRPC frame included."""
        size: int = self._ask(0, action="reply_bytes", model=model)["reply_bytes"]
        return size

    def _ask(self, extra_s: float, **command: object) -> dict[str, Any]:
        self._send(**command)
        return self._read(ANSWER_TIMEOUT_S + extra_s)

    def _send(self, **command: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise CheckerError("the checking client has ended") from None

    def _read(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        watchdog = threading.Timer(timeout_s, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise CheckerError("the checking client ended or did not answer in time")
        answer: dict[str, Any] = json.loads(line)
        return answer
