"""Numbers on the command line; what is none is argparse's error, with the reason."""

from __future__ import annotations

import argparse

from crossfade.serving.config.sizes import parse_bytes


def port(text: str) -> int:
    """Reads a port, 0 to 65535."""
    if text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a port (0 to 65535)")


def positive(text: str) -> int:
    """Reads a positive integer."""
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a positive integer")


def memory(text: str) -> int:
    """Reads an amount of memory: 4294967296, 4GiB."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def rate(text: str) -> float:
    """Reads requests a second."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0.001 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of requests a second")
    return value


def percent(text: str) -> float:
    """Reads a share, 0 to 100."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"'{text}' is not a percentage (0 to 100)")
    return value


def seconds(text: str) -> float:
    """Reads a number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")
    return value


def positive_seconds(text: str) -> float:
    """Reads a number of seconds, more than none."""
    value = seconds(text)
    if value > 0:
        return value
    raise argparse.ArgumentTypeError(f"'{text}' is not a positive number of seconds")
