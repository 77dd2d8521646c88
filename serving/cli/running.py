"""Runs a server until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading

from crossfade.serving.config.server_config import ServerConfig
from crossfade.serving.lifecycle.model_list import ModelListSettings


def run_until_signal(config: ServerConfig, listed: ModelListSettings | None = None) -> int:
    """Serves until a signal, then ends the process with 0; raises what the start raised."""
    from crossfade.serving.app.server import Server

    # The kernel gives a signal to any thread, and Python's handler runs when the main thread next
    # does: which, blocked, it may never. The wake-up pipe is written at once.
    asked, ask = os.pipe()
    os.set_blocking(ask, False)
    signal.set_wakeup_fd(ask, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server = Server(config, listed)
    failures: list[BaseException] = []

    def start() -> None:  # beside the main thread, so that a signal is heard while models load
        try:
            server.start()
        except BaseException as error:
            failures.append(error)
            os.write(ask, b"!")

    threading.Thread(target=start, name="start", daemon=True).start()
    os.read(asked, 1)
    threading.Thread(target=_end_when_asked_again, args=(asked,), daemon=True).start()
    server.stop()
    if failures:
        raise failures[0]
    logging.shutdown()
    # Everything is closed. The interpreter would now join the threads of its pools, and one that
    # is stuck in a model or a library cannot be interrupted.
    os._exit(0)


def _end_when_asked_again(asked: int) -> None:
    os.read(asked, 1)
    os._exit(1)
