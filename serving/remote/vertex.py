"""A Vertex AI endpoint's ``predict``: instances in, predictions out, nothing said of either."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from crossfade.runtimes.core.errors import Code, InvalidArgument
from crossfade.runtimes.core.model import Signature, TensorSpec
from crossfade.serving.remote.connecting import http_client
from crossfade.serving.remote.contract import Ask, Place, b64, reading, texts
from crossfade.serving.remote.failures import FarError
from crossfade.serving.remote.http_status import checked
from crossfade.serving.remote.options import Declared
from crossfade.serving.tensors import json_values
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.tensors.strict_json import loads

_JSON: Final = ("content-type", "application/json")


class Vertex:
    """See ``Contract``. An instance is one row of every input; one input alone is the instance."""

    def __init__(self, place: Place) -> None:
        options = place.options
        self._place = place
        self._path = urlsplit(options.url).path or "/"
        self._encoders = {declared.name: _encoder(declared) for declared in options.inputs}
        self._client = http_client(options.url, options.tls, place.folder, options.max_answer_bytes)

    def describe(self, until_s: float) -> Mapping[str, Signature]:
        """There is no metadata; the options see to it that this is never asked."""
        raise FarError(Code.UNIMPLEMENTED, "Vertex AI says nothing of a model's tensors")

    def infer(self, ask: Ask) -> Sequence[RawTensor]:
        """See ``Contract.infer``."""
        rows = {len(array) if array.ndim else 0 for array in ask.inputs.values()}
        if len(rows) != 1 or 0 in rows:
            raise InvalidArgument("every input must have the same number of rows, at least one")
        columns, odd = self._columns(ask)
        instances = [
            {name: column[row] for name, column in columns.items()} for row in range(rows.pop())
        ]
        document: dict[str, Any] = {"instances": instances}
        if self._place.options.parameters:
            document["parameters"] = self._place.options.parameters
        headers = [*self._place.credentials.headers(ask.until_s), _JSON]
        body = json_values.dumps(document, odd)
        found = checked(self._client.request("POST", self._path, headers, (body,), ask.until_s))
        with reading("the answer"):
            predictions = loads(found, nonfinite=True)["predictions"]
            if not isinstance(predictions, list) or len(predictions) != len(instances):
                raise InvalidArgument("it has not one prediction for each instance")
            specs = {spec.name: spec for spec in ask.signature.outputs}
            return [_output(specs[name], predictions, len(specs) == 1) for name in ask.outputs]

    def close(self) -> None:
        """See ``Contract.close``."""
        self._client.close()

    def _columns(self, ask: Ask) -> tuple[dict[str, Any], bool]:
        """The inputs as rows for JSON, and whether NaN or infinity is among them."""
        numbers = {n: a for n, a in ask.inputs.items() if a.dtype != object}
        columns, odd = json_values.plain(numbers)
        strings = {
            name: texts(array, self._encoders[name])
            for name, array in ask.inputs.items()
            if array.dtype == object
        }
        return {name: (columns | strings)[name] for name in ask.inputs}, odd


def _encoder(declared: Declared) -> Callable[[bytes], Any]:
    def text(element: bytes) -> str:
        try:
            return element.decode()
        except UnicodeDecodeError:
            raise InvalidArgument(
                f"input '{declared.name}' holds bytes that are not UTF-8 text; its 'encoding' in"
                " the model's configuration is text"
            ) from None

    encoders: dict[str, Callable[[bytes], Any]] = {
        "text": text,
        "base64": lambda element: b64(element)["b64"],
        "b64": b64,
    }
    return encoders[declared.encoding]


def _output(spec: TensorSpec, predictions: Sequence[Any], alone: bool) -> RawTensor:
    """One output of all rows; a prediction that is no object is the only output itself."""
    rows = [
        p[spec.name] if isinstance(p, dict) and not (alone and json_values.is_bytes(p)) else p
        for p in predictions
    ]
    if not alone and any(not isinstance(p, dict) for p in predictions):
        raise InvalidArgument("a prediction is no object, but several outputs are declared")
    raw = json_values.to_raw(spec, rows)
    if isinstance(raw.data, np.ndarray) and not raw.data.size and spec.shape is not None:
        raw.shape = (len(rows), *(0 if size == -1 else size for size in spec.shape[1:]))
    return raw
