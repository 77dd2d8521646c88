"""Messages between a server and its worker: a length and a JSON object, nothing that is executed.

Tensors do not travel here; they lie in an arena (``arena.py``).
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any, Final

_LENGTH: Final = struct.Struct("<I")
# No honest message is longer: names, shapes, an error's text.
_MAX_BYTES: Final = 8 << 20

Message = dict[str, Any]


class Broken(Exception):
    """What came is no message, or the other side has gone."""


class Frames:
    """One end of a stream socket. One thread at a time sends, and one receives.

    A receive that runs out of time keeps what has come, so that the next one goes on with it.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._buffer = bytearray()

    def send(self, message: Message) -> None:
        """Sends one message.

        Raises:
            Broken: the other side has gone.
        """
        body = json.dumps(message, separators=(",", ":")).encode()
        try:
            self._end.settimeout(None)
            self._end.sendall(_LENGTH.pack(len(body)) + body)
        except OSError as error:
            raise Broken(str(error)) from error

    def receive(self, until_s: float | None = None) -> Message:
        """Waits for one message.

        Args:
            until_s: ``time.monotonic()`` value to wait for at most; ``None`` is for ever.

        Raises:
            Broken: the other side has gone, or sent what is no message.
            TimeoutError: it did not come in time.
        """
        self._fill(_LENGTH.size, until_s)
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > _MAX_BYTES:
            raise Broken(f"a message of {length} bytes")
        self._fill(_LENGTH.size + length, until_s)
        body = bytes(self._buffer[_LENGTH.size : _LENGTH.size + length])
        del self._buffer[: _LENGTH.size + length]
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Broken("a message that is not JSON") from error
        if not isinstance(message, dict):
            raise Broken("a message that is no object")
        return message

    def close(self) -> None:
        """Closes the socket; the other side reads its end."""
        self._end.close()

    def _fill(self, size: int, until_s: float | None) -> None:
        while len(self._buffer) < size:
            if until_s is not None:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError
                self._end.settimeout(left_s)
            else:
                self._end.settimeout(None)
            try:
                part = self._end.recv(1 << 16)
            except TimeoutError:
                raise
            except OSError as error:
                raise Broken(str(error)) from error
            if not part:
                raise Broken("the other side has gone")
            self._buffer += part
