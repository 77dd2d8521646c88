"""A fade, to look at: an AutoML-style export hands its traffic over to its successor.

    make demo-fade

A client asks for the same model all the time and notices nothing: not the steps, not the server's
death by kill -9 in the middle, not the promotion, not the rollback; and in the second act not even
a successor whose new version is wrong, which is rolled back by itself. At the end every request is
accounted for, and a picture of each act is in ``build/``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from PIL import Image

HERE = Path(__file__).resolve().parent
DIGITS = HERE.parent / "digits"
OUT = HERE.parents[1] / "build"
NAME = "digits"
LABELS = (DIGITS / "models" / "digits_custom" / "labels.txt").read_text().split()
# What the clients of the export send, the custom model takes, too: a picture as a file.
CONFIGS = {
    "digits": "preprocess: {name: image_bytes}",
    "digits_custom": "preprocess: {name: image_bytes, scale: 0.00392156862745098}",
}
PROCESSED = "task: classification\n%s\npostprocess: {}\n"
ENSEMBLE = """\
ensemble:
  kind: weighted
  members: [{model: digits}, {model: digits_custom}]
  scores: probabilities
"""
VARIANTS = 25  # of each sample picture
WIDTH = 50


def make_repository(folder: Path) -> Path:
    """The sample models as ``digits`` (the export), ``digits_custom`` and their ensemble."""
    for name, source in (("digits", "digits_automl"), ("digits_custom", "digits_custom")):
        shutil.copytree(DIGITS / "models" / source, folder / name)
        (folder / name / "model.yaml").write_text(PROCESSED % CONFIGS[name])
    (folder / "digits_ensemble").mkdir()
    (folder / "digits_ensemble" / "model.yaml").write_text(ENSEMBLE)
    return folder


def spoil(model: Path) -> None:
    """Adds a version whose labels were written in another order: it loads, and it is wrong."""
    print("\n         digits_custom has a new version", flush=True)
    scratch = model.parent / ".spoiled"
    shutil.copytree(model / "1", scratch)
    (scratch / "labels.txt").write_text("\n".join(LABELS[1:] + LABELS[:1]))
    scratch.rename(model / "2")


def pictures() -> list[tuple[bytes, str]]:
    """PNG files of slightly turned sample digits, with what they show."""
    rng = np.random.default_rng(7)
    found = []
    for path in sorted((DIGITS / "images").glob("*.png")):
        for _ in range(VARIANTS):
            turned = Image.open(path).rotate(rng.uniform(-8, 8), Image.Resampling.BILINEAR)
            buffer = io.BytesIO()
            turned.save(buffer, "PNG")
            found.append((buffer.getvalue(), path.stem.partition("_")[0]))
    return found


class Server:
    """``crossfade serve`` as a process that can be killed and started again on its ports."""

    def __init__(self, repository: Path, database: Path) -> None:
        self.grpc, self.http = (free_port() for _ in range(2))
        self._command = [
            *(sys.executable, "-m", "crossfade", "serve", "--log-level", "error"),
            *("--model-repository", str(repository), "--model-control-mode", "poll"),
            *("--poll-s", "0.5", "--fade-database", f"sqlite:///{database}"),
            *("--grpc-port", str(self.grpc), "--http-port", str(self.http)),
            *("--metrics-port", "0"),
        ]
        self.process = subprocess.Popen(self._command)

    @property
    def url(self) -> str:
        """Where it speaks gRPC."""
        return f"127.0.0.1:{self.grpc}"

    def kill_and_start_again(self) -> None:
        """As if its machine had lost power."""
        print(f"\n         kill -9 {self.process.pid}: the server is gone", flush=True)
        self.process.kill()
        self.process.wait(10)
        self.process = subprocess.Popen(self._command)

    def wait_ready(self) -> None:
        """Until its models are there."""
        until_s = time.monotonic() + 60
        with triton.InferenceServerClient(self.url) as client:
            while time.monotonic() < until_s:
                if self.process.poll() is not None:
                    sys.exit("the server ended; its message is above")
                with contextlib.suppress(triton.InferenceServerException):
                    if client.is_server_ready():
                        return
                time.sleep(0.05)
        sys.exit("the server is not ready after 60 s")

    def stop(self) -> None:
        """Lets it finish."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class Client(threading.Thread):
    """Asks all the time, tells the truth of every second picture, and counts what fails."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.answered = self.right = self.down = 0
        self.failed: list[str] = []
        self.stop = threading.Event()
        self._server = server
        self._truths: dict[str, str] = {}

    def run(self) -> None:
        """Until ``stop``."""
        found = pictures()
        rng = np.random.default_rng(1)
        client = triton.InferenceServerClient(self._server.url)
        while not self.stop.is_set():
            data, truth = found[rng.integers(len(found))]
            try:
                label, request_id = ask(client, NAME, data)
            except triton.InferenceServerException as error:
                if "connect" not in str(error).lower() and "closed" not in str(error).lower():
                    self.failed.append(str(error))
                self.down += 1  # nobody listens: try again
                client = triton.InferenceServerClient(self._server.url)
                time.sleep(0.1)
                continue
            self.answered += 1
            self.right += label == truth
            if request_id and self.answered % 2 == 0:
                self._truths[request_id] = truth
            if len(self._truths) >= 20:
                with contextlib.suppress(OSError):  # told later, with the next ones
                    post(self._server, f"/v2/models/{NAME}/feedback", truths(self._truths))
                    self._truths.clear()
            time.sleep(0.004)


def ask(client: Any, model: str, data: bytes) -> tuple[str, str]:
    """The label of a picture, and the request's id."""
    tensor = triton.InferInput("image_bytes", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([data], np.object_))
    result = client.infer(model, [tensor], client_timeout=10)
    return LABELS[int(result.as_numpy("scores")[0].argmax())], result.get_response().id


def truths(given: dict[str, str]) -> bytes:
    """The body of a feedback request."""
    return json.dumps({"truths": [{"id": i, "truth": t} for i, t in given.items()]}).encode()


def post(server: Server, path: str, body: bytes) -> None:
    """Sends JSON; raises OSError where nobody listens."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.http}{path}", body, method="POST")
    with urllib.request.urlopen(request, timeout=10) as response:
        response.read()


def crossfade(server: Server, *arguments: str) -> str:
    """Runs ``crossfade fade`` and returns what it prints."""
    command = [sys.executable, "-m", "crossfade", "fade", *arguments, "--url", server.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        sys.exit(f"crossfade fade {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def status(server: Server) -> Any:
    """The fade's status; ``None`` while nobody listens."""
    with contextlib.suppress(OSError):
        path = f"http://127.0.0.1:{server.http}/v2/fades/{NAME}"
        with urllib.request.urlopen(path, timeout=5) as response:
            return json.loads(response.read())
    return None


def follow(
    server: Server, client: Client, at_step: int = 0, event: Callable[[], None] | None = None
) -> str:
    """Draws a line whenever something changed, until the fade has ended; returns how.

    ``event`` happens once, as soon as the fade is at ``at_step``.
    """
    last, began_s = "", time.monotonic()
    while True:
        found = status(server)
        if found is not None:
            share = found["traffic_percent"]
            bar = "#" * round(WIDTH * share / 100)
            head = f"{found['status'].replace('_', ' '):11} {share:5.0f} % [{bar:.<{WIDTH}}]"
            if head != last or sys.stdout.isatty():
                wait = found["missing"][0] if found["missing"] else found["last_decision"]["reason"]
                line = f"{time.monotonic() - began_s:5.1f} s  {head}  {client.answered:6} answers"
                line += f", {len(client.failed)} failed  {wait}"
                again = "\r\x1b[K" if sys.stdout.isatty() else ""
                end = "" if again and head == last else "\n"
                sys.stdout.write(f"{again}{line[:150]}{end}")
                sys.stdout.flush()
            last = head
            if found["status"] not in {"RUNNING", "PAUSED"}:
                return str(found["status"])
            if event and found["step"] >= at_step:
                event()
                event = None
        time.sleep(0.25)


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[Server, Client]]:
    """A server and a client, until the end of the block."""
    server = Server(make_repository(folder / "models"), folder / "fades.db")
    client = Client(server)
    try:
        server.wait_ready()
        client.start()
        yield server, client
    finally:
        client.stop.set()
        if client.ident is not None:
            client.join(15)
        server.stop()


def main() -> int:
    """Plays both acts; returns 1 if any request failed or an act ended otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="where the pictures go")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    ends = []
    with tempfile.TemporaryDirectory() as scratch, running(Path(scratch)) as (server, client):
        with triton.InferenceServerClient(server.url) as asked:
            for model in ("digits", "digits_custom", "digits_ensemble"):
                some = pictures()[::3]
                right = sum(ask(asked, model, data)[0] == truth for data, truth in some)
                print(f"{model:16} gets {right} of {len(some)} turned digits right")
        start = ("start", NAME, "--from", NAME, "--to", "digits_custom")
        start += ("--plan", str(HERE / "fade.yaml"))
        print("\nact 1: from the export to the custom model; clients call 'digits' all the time\n")
        crossfade(server, *start)
        ends.append(follow(server, client, 4, server.kill_and_start_again))
        crossfade(server, "rollback", NAME, "--reason", "to show that it can be undone")
        follow(server, client)
        print(crossfade(server, "history", NAME, "--plot", str(out / "fade.svg")))
        print(
            "act 2: again, and in the middle somebody brings a version with its labels in disorder"
        )
        print()
        crossfade(server, *start)
        custom = Path(scratch) / "models" / "digits_custom"
        ends.append(follow(server, client, 4, lambda: spoil(custom)))
        print(crossfade(server, "history", NAME, "--plot", str(out / "fade-rolled-back.svg")))
    print(
        f"{client.answered} requests answered, {client.right} of them right, "
        f"{len(client.failed)} failed; {client.down} times nobody listened"
    )
    print(f"pictures: {out / 'fade.svg'}, {out / 'fade-rolled-back.svg'}")
    for error in client.failed[:3]:
        print(f"failed: {error}")
    return int(bool(client.failed) or ends != ["PROMOTED", "ROLLED_BACK"])


if __name__ == "__main__":
    sys.exit(main())
