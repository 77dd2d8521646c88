"""Does the server leak? Good and bad clients for an hour, and what memory and descriptors do.

Run it with ``make soak``, or::

    python -m crossfade.benchmarks.soak --minutes 60 --transport native

Good clients ask all the time and compare every answer; bad ones (see ``bad_clients.py``) come one
after the other. What counts is the resident memory, the file descriptors and the threads of the
server, looked at while the bad clients pause, in the second quarter of the time against the last.
The last line of standard output is one JSON object; the exit status is 1 if anything grew.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

from crossfade.benchmarks.bad_clients import BAD_CLIENTS
from crossfade.benchmarks.models import addsub_inputs, infer_request
from crossfade.benchmarks.peers.crossfade import Crossfade
from crossfade.benchmarks.processes import ServerProcess
from crossfade.benchmarks.progress import progress
from crossfade.benchmarks.protocols import wait_ready
from crossfade.benchmarks.workspace import Workspace

LOOK_S = 15.0
PAUSE_S = 2.0  # before a look, so that what is on its way is over
GROWTH_BYTES = 8 * 2**20
GROWTH_COUNT = 4


@dataclass(frozen=True)
class Look:
    """The server at one moment, while no bad client is there."""

    at_s: float
    resident_bytes: int
    descriptors: int
    threads: int


class Good:
    """A client that asks and compares, until it is told to end."""

    def __init__(self, port: int) -> None:
        self.asked = 0
        self.wrong = 0
        self.errors: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, args=(port,))
        self._thread.start()

    def end(self) -> None:
        """Ends it, and waits."""
        self._over.set()
        self._thread.join()

    def _ask(self, port: int) -> None:
        generator = np.random.default_rng()
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            while not self._over.wait(0.002):
                a, b = generator.integers(-1000, 1000, (2, 1, 16), dtype=np.int32)
                inputs = [triton.InferInput(f"INPUT{i}", [1, 16], "INT32") for i in (0, 1)]
                for tensor, values in zip(inputs, (a, b), strict=True):
                    tensor.set_data_from_numpy(values)
                try:
                    answer = client.infer("addsub", inputs, client_timeout=10)
                except Exception as error:
                    self.errors.append(str(error))
                    continue
                self.asked += 1
                self.wrong += not np.array_equal(answer.as_numpy("OUTPUT0"), a + b)


def look(pid: int, began_s: float) -> Look:
    """Reads the process's own files."""
    process = Path(f"/proc/{pid}")
    fields = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
    )
    return Look(
        round(time.monotonic() - began_s, 1),
        int(fields["VmRSS"].split()[0]) * 1024,
        len(list((process / "fd").iterdir())),
        int(fields["Threads"]),
    )


def growth(looks: Sequence[Look]) -> dict[str, float]:
    """The last quarter's median less the second quarter's, of each number."""
    quarter = max(1, len(looks) // 4)
    early, late = looks[quarter : 2 * quarter], looks[-quarter:]
    return {
        name: statistics.median(getattr(entry, name) for entry in late)
        - statistics.median(getattr(entry, name) for entry in early)
        for name in ("resident_bytes", "descriptors", "threads")
    }


def soak(workspace: Workspace, minutes: float, transport: str) -> dict[str, object]:
    """Runs it; returns what goes into the JSON object."""
    workspace.root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "crossfade.benchmarks.models", str(workspace.root)]
    subprocess.run(command, check=True)
    message = infer_request("addsub", addsub_inputs(np.random.default_rng(0))).SerializeToString()
    launch = Crossfade().launch(workspace, ("addsub",))
    launch = dataclasses.replace(launch, command=[*launch.command, "--transport", transport])
    looks: list[Look] = []
    server = ServerProcess("soak", launch, workspace.log_file("soak"))
    rounds = 0
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        with triton.InferenceServerClient(f"127.0.0.1:{launch.grpc_port}") as client:
            wait_ready(server, client)
        began_s = time.monotonic()
        good = [Good(launch.grpc_port) for _ in range(2)]
        try:
            until_s = began_s + 60 * minutes
            while time.monotonic() < until_s:
                looked_s = time.monotonic()
                while time.monotonic() - looked_s < LOOK_S:
                    with contextlib.suppress(OSError):  # hung up on, as it should be
                        BAD_CLIENTS[rounds % len(BAD_CLIENTS)](launch.grpc_port, message)
                    rounds += 1
                time.sleep(PAUSE_S)
                looks.append(look(server.pids()[0], began_s))
                progress(f"{looks[-1]}, {rounds} bad clients, {good[0].asked} answers")
        finally:
            for client in good:
                client.end()
    grown = growth(looks)
    return {
        "transport": transport,
        "minutes": minutes,
        "bad_clients": rounds,
        "answers": sum(client.asked for client in good),
        "wrong_answers": sum(client.wrong for client in good),
        "errors": [error for client in good for error in client.errors][:20],
        "failed": sum(len(client.errors) for client in good),
        "growth": grown,
        "flat": grown["resident_bytes"] < GROWTH_BYTES
        and grown["descriptors"] < GROWTH_COUNT
        and grown["threads"] < GROWTH_COUNT,
        "first": asdict(looks[0]),
        "last": asdict(looks[-1]),
    }


def main(arguments: Sequence[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--transport", choices=("native", "grpcio"), default="native")
    parser.add_argument("--workspace", type=Path, default=Path(".bench"))
    options = parser.parse_args(arguments)
    result = soak(Workspace(options.workspace), options.minutes, options.transport)
    print(json.dumps(result))
    return 0 if result["flat"] and not result["wrong_answers"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
