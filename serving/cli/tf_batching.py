"""TensorFlow Serving's batching parameters as a model's configuration here."""

from __future__ import annotations

import logging
from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument

_log = logging.getLogger(__name__)
# TensorFlow Serving's own defaults.
_MAX_BATCH_SIZE: Final = 1000
_MAX_ENQUEUED_BATCHES: Final = 10
_MAX_DELAY_US: Final = 10_000_000
_MOST: Final = 2**31
_NO_EFFECT: Final = {
    "thread_pool_name": "there is no pool of threads for batches",
    "allowed_batch_sizes": "batches are not padded; runtimes take any size",
    "pad_variable_length_inputs": "requests of other shapes travel in another batch",
    "enable_large_batch_splitting": "a request with more rows than max_batch_size runs as one",
    "max_execution_batch_size": "a request with more rows than max_batch_size runs as one",
}


def settings(parameters: Any) -> dict[str, Any]:
    """Fields of ``ModelConfig`` for a ``BatchingParameters``; says what has no effect.

    Raises:
        InvalidArgument: a number is too small or too large.
    """
    for name, reason in _NO_EFFECT.items():
        value = getattr(parameters, name)
        is_given = parameters.HasField(name) if hasattr(value, "DESCRIPTOR") else bool(value)
        if is_given:
            _log.warning("batching parameter '%s' has no effect: %s", name, reason)
    max_size = _number(parameters, "max_batch_size", 1) or _MAX_BATCH_SIZE
    delay_us = _number(parameters, "batch_timeout_micros", 0) or 0
    if delay_us > _MAX_DELAY_US:
        raise InvalidArgument(f"batch_timeout_micros is {delay_us}, more than {_MAX_DELAY_US}")
    batches = _number(parameters, "max_enqueued_batches", 1) or _MAX_ENQUEUED_BATCHES
    found: dict[str, Any] = {
        "batching": {"max_size": max_size, "max_delay_ms": delay_us / 1000},
        # The queue counts requests, of one row at least.
        "queue": {"max_size": batches * max_size},
    }
    if threads := _number(parameters, "num_batch_threads", 1):
        found["instances"] = min(threads, 1024)
    return found


def _number(parameters: Any, name: str, least: int) -> int | None:
    if not parameters.HasField(name):
        return None
    value = int(getattr(parameters, name).value)
    if least <= value < _MOST:
        return value
    raise InvalidArgument(f"{name} is {value}; it must be {least} or more, and below 2^31")
