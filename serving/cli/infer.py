"""``crossfade infer``: send a file or JSON to a running server and print the answer."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.runtimes.core.model import Tensor
from crossfade.serving.cli import client, image_input
from crossfade.serving.cli.client import Client
from crossfade.serving.tensors.raw import decode_bytes, encode_bytes
from crossfade.serving.tensors.strict_json import to_array
from crossfade.serving.wire import open_inference as wire

_EPILOG = """\
data is one of
  photo.jpg         an image, for a model with one uint8 image or one BYTES input
  tensor.npy        a numpy array, for a model with one input
  request.json, -   JSON from a file or from stdin
  '{"x": [[1, 2]]}' JSON: a value for each input by name, or one value for a model with one input

examples:
  crossfade infer digits_automl examples/digits/images/three_0.png --top 3
  crossfade infer simple '{"INPUT0": [[1, 2]], "INPUT1": [[3, 4]]}' --url 127.0.0.1:8001

A server that wants a token gets the one in the environment variable CROSSFADE_TOKEN.
"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "infer",
        help="send a file or JSON to a running server and print the answer",
        description="Send a file or JSON to a running server and print the answer.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("model", help="the model's name")
    option("data", help="what to send")
    option("--version", default="", dest="model_version", help="the version (the latest)")
    option("--top", type=int, default=0, metavar="K", help="print the best K classes and labels")
    option("--json", action="store_true", help="print JSON instead of text")
    client.add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Sends one request and prints the answer; returns the exit code."""
    call = Client(options).call
    metadata = call(
        "ModelMetadata",
        wire.ModelMetadataRequest(name=options.model, version=options.model_version),
        wire.ModelMetadataResponse,
    )
    specs = list(metadata.inputs)
    if len(specs) > 1:  # what a file is for is the one input that has to be sent
        about = wire.ModelConfigRequest(name=options.model, version=options.model_version)
        config = call("ModelConfig", about, wire.ModelConfigResponse).config
        optional = {tensor.name for tensor in config.input if tensor.optional}
        specs.sort(key=lambda spec: spec.name in optional)
        if len(specs) - len(optional) == 1 and Path(options.data).is_file():
            del specs[1:]
    inputs, notes = _inputs(options.data, specs)
    for note in notes:
        sys.stderr.write(f"{note}\n")
    request = wire.ModelInferRequest(model_name=options.model, model_version=options.model_version)
    for spec in metadata.inputs:
        if spec.name in inputs:
            array = inputs[spec.name]
            request.inputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
            raw = encode_bytes(array) if spec.datatype == "BYTES" else array.tobytes()
            request.raw_input_contents.append(raw)
    for spec in metadata.outputs:
        if options.top and spec.datatype != "BYTES":
            output = request.outputs.add(name=spec.name)
            output.parameters["classification"].int64_param = options.top
    began_s = time.perf_counter()
    response = call("ModelInfer", request, wire.ModelInferResponse)
    latency_ms = (time.perf_counter() - began_s) * 1000
    if options.json:
        sys.stdout.write(json.dumps(_as_json(response)) + "\n")
    else:
        sys.stdout.write(_as_text(response, latency_ms))
    return 0


def _inputs(data: str, specs: list[Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Makes an array for each input, and notes on what was done to make them."""
    path = Path(data)
    if data.lstrip()[:1] in ("{", "["):
        return _from_json(data, specs), []
    if data == "-":
        return _from_json(sys.stdin.read(), specs), []
    if not path.is_file():
        raise NotFound(f"there is no file '{data}', and it is not JSON")
    if path.suffix == ".json":
        return _from_json(path.read_text(), specs), []
    spec = _only(specs, path.suffix)
    if path.suffix == ".npy":
        array = np.load(path, allow_pickle=False).astype(NUMPY[spec.datatype])
        return {spec.name: _fit(array, spec)}, []
    if spec.datatype == "BYTES":
        return {spec.name: _fit(_bytes_array([path.read_bytes()]), spec)}, []
    image, note = image_input.load(path, spec.name, spec.datatype, list(spec.shape))
    return {spec.name: image}, [note]


def _only(specs: list[Any], suffix: str) -> Any:
    if len(specs) != 1:
        names = ", ".join(spec.name for spec in specs)
        raise InvalidArgument(f"the model has several inputs ({names}): send JSON, not {suffix}")
    return specs[0]


def _from_json(text: str, specs: list[Any]) -> dict[str, Tensor]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"not JSON: {error}") from None
    if not isinstance(values, dict):
        values = {_only(specs, "one value").name: values}
    known = {spec.name: spec for spec in specs}
    unknown = values.keys() - known.keys()
    if unknown:
        raise InvalidArgument(f"unknown input {sorted(unknown)}; the model has {sorted(known)}")
    return {name: _from_value(known[name], value) for name, value in values.items()}


def _from_value(spec: Any, value: Any) -> Tensor:
    array = to_array(spec.name, spec.datatype, value, NUMPY[spec.datatype])
    if spec.datatype == "BYTES":
        array = array.reshape(np.shape(value))
    return _fit(array, spec)


def _fit(array: Tensor, spec: Any) -> Tensor:
    """Adds the leading batch dimension of 1 that people leave out."""
    return array[None] if array.ndim == len(spec.shape) - 1 else array


def _bytes_array(values: list[bytes]) -> Tensor:
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def _outputs(response: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for spec, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        shape = tuple(spec.shape)
        if spec.datatype == "BYTES":
            count = int(np.prod(shape))
            found[spec.name] = decode_bytes(raw, count, spec.name).reshape(shape)
        else:
            found[spec.name] = np.frombuffer(raw, NUMPY[spec.datatype]).reshape(shape)
    return found


def _as_json(response: Any) -> dict[str, Any]:
    outputs = {
        name: np.vectorize(lambda e: e.decode("utf-8", "replace"), otypes=[object])(array).tolist()
        if array.dtype == np.object_
        else array.tolist()
        for name, array in _outputs(response).items()
    }
    return {"model": response.model_name, "version": response.model_version, "outputs": outputs}


def _as_text(response: Any, latency_ms: float) -> str:
    head = f"{response.model_name} version {response.model_version}, {latency_ms:.1f} ms"
    lines = [head]
    for name, array in _outputs(response).items():
        lines.append(f"{name}: {list(array.shape)}")
        if array.dtype == np.object_:
            lines += [f"  {e.decode('utf-8', 'backslashreplace')}" for e in array.ravel()[:100]]
        else:
            shown = np.array2string(array, threshold=100, precision=6, suppress_small=True)
            lines += [f"  {line}" for line in shown.splitlines()]
    return "\n".join(lines) + "\n"
