"""The binary tensor extension of HTTP: JSON first, then the bytes of its tensors in order."""

from __future__ import annotations

from typing import Final

from crossfade.runtimes.core.errors import InvalidArgument

HEADER: Final = "Inference-Header-Content-Length"
_MAX_DIGITS: Final = 19


def split(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """Cuts a body into its JSON and what follows.

    Args:
        body: the body, decompressed.
        length: value of the header that says how long the JSON is; ``None`` is all of it.

    Raises:
        InvalidArgument: the length is no number, or more than there is.
    """
    if length is None:
        return body, memoryview(b"")
    is_number = length.isascii() and length.isdigit() and len(length) <= _MAX_DIGITS
    if not is_number or int(length) > len(body):
        raise InvalidArgument(
            f"{HEADER} must be an integer between 0 and the size of the body, {len(body)}"
        )
    return body[: int(length)], memoryview(body)[int(length) :]


class Tail:
    """What follows the JSON; taken from front to back."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, size: object, place: str) -> memoryview:
        """Returns the next ``size`` bytes, as a view.

        Args:
            size: parameter ``binary_data_size``, whatever the client wrote.
            place: who wants them, for messages.

        Raises:
            InvalidArgument: ``size`` is no size, or more than is left.
        """
        if type(size) is not int or not 0 <= size <= len(self._data):
            raise InvalidArgument(
                f"{place}: 'binary_data_size' must be an integer between 0 and what is left of"
                f" the body, {len(self._data)}"
            )
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def finish(self) -> None:
        """Raises InvalidArgument if something is left that no input has taken."""
        if self._data:
            raise InvalidArgument(
                f"the body has {len(self._data)} bytes after the last input's binary data"
            )
