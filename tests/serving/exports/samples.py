"""Small stand-ins for exports, byte by byte: no library of a runtime is needed to write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from crossfade.serving.exports.record_file import write
from crossfade.serving.wire import tf_framework, tf_serving
from crossfade.serving.wire.fields import varint_bytes

Tensors = Mapping[str, tuple[int, Sequence[int]]]
STRUCT2TENSOR_OPS = ("DecodeProtoSparseV4", "DecodeProtoMapV2", "RunLengthBefore")
CONTAINER = "us-docker.pkg.dev/vertex-ai/automl-tabular/prediction-server:20221014_0525"
INSTANCE = """\
type: object
properties:
  Age: {type: string, nullable: true, example: '39'}
  Sex: {type: string, nullable: true, example: male}
"""
PREDICTION = """\
type: object
properties:
  classes: {type: array, items: {type: string, enum: ['0', '1']}}
  scores: {type: array, items: {type: number}}
"""


def field(number: int, content: bytes | str) -> bytes:
    """One length-delimited field of a protobuf message."""
    data = content.encode() if isinstance(content, str) else content
    return varint_bytes(number << 3 | 2) + varint_bytes(len(data)) + data


def node(op: str) -> bytes:
    return field(1, f"node_{op}") + field(2, op) + field(3, "x")


def function(name: str, ops: Sequence[str]) -> bytes:
    return field(1, field(1, name)) + b"".join(field(3, node(op)) for op in ops)


def signature(inputs: Tensors, outputs: Tensors, method: str = "predict") -> bytes:
    definition = tf_framework.SignatureDef(method_name=f"tensorflow/serving/{method}")
    for side, tensors in ((definition.inputs, inputs), (definition.outputs, outputs)):
        for name, (dtype, shape) in tensors.items():
            side[name].name, side[name].dtype = f"{name}:0", dtype
            for size in shape:
                side[name].tensor_shape.dim.add(size=size)
    return definition.SerializeToString()


def saved_model(
    ops: Sequence[str],
    signatures: Mapping[str, bytes],
    functions: Mapping[str, Sequence[str]] | None = None,
    tag: str = "serve",
) -> bytes:
    """The bytes of ``saved_model.pb``."""
    library = b"".join(field(1, function(n, inner)) for n, inner in (functions or {}).items())
    graph = b"".join(field(1, node(op)) for op in ops) + (field(2, library) if library else b"")
    meta = field(1, field(4, tag)) + field(2, graph)
    for name, definition in signatures.items():
        meta += field(5, field(1, name) + field(2, definition))
    return b"\x08\x01" + field(2, meta)


def pictures(outputs: Sequence[str], image: str = "image_bytes") -> bytes:
    """``saved_model.pb`` of a container export: encoded pictures with keys."""
    text, number = tf_framework.DT_STRING, tf_framework.DT_FLOAT
    ins = {image: (text, [-1]), "key": (text, [-1])}
    outs = {name: (text if name in ("labels", "key") else number, [-1, -1]) for name in outputs}
    ops = ["Placeholder", "DecodeImage", "ResizeBilinear", "StatefulPartitionedCall"]
    return saved_model(ops, {"serving_default": signature(ins, outs)})


def predict_log(inputs: Mapping[str, Sequence[bytes]], name: str = "serving_default") -> bytes:
    """A ``PredictionLog`` of a predict request with text."""
    request = tf_serving.PredictRequest()
    request.model_spec.signature_name = name
    for key, values in inputs.items():
        tensor = request.inputs[key]
        tensor.dtype = tf_framework.DT_STRING
        tensor.tensor_shape.dim.add(size=len(values))
        tensor.string_val.extend(values)
    return field(6, field(1, request.SerializeToString()))


def tabular(folder: Path, ops: Sequence[str] = STRUCT2TENSOR_OPS, requests: int = 3) -> Path:
    """A tabular export as Vertex AI lays it out; returns the folder with its metadata."""
    root = folder / "model-394" / "tf-saved-model" / "2022-10-04T11:50:12.690567Z"
    graph = root / "predict" / "001"
    (graph / "assets.extra").mkdir(parents=True)
    (graph / "variables").mkdir()
    (graph / "assets").mkdir()
    (graph / "assets" / "Sex_vocab").write_text("male\nfemale\n")
    text, number = tf_framework.DT_STRING, tf_framework.DT_FLOAT
    definition = signature(
        {"inputs": (text, [-1])},
        {"classes": (text, [-1, -1]), "scores": (number, [-1, -1])},
        "classify",
    )
    content = saved_model(
        ["Placeholder", "PartitionedCall"],
        {"serving_default": definition},
        {"__inference_signature_wrapper": ["PartitionedCall", "inner"], "inner": ops},
    )
    (graph / "saved_model.pb").write_bytes(content)
    (graph / "variables" / "variables.index").write_bytes(b"index")
    rows = [bytes([0x2A, 0x80 | i, 1, 0xFF]) for i in range(requests)]  # not UTF-8, as theirs are
    (graph / "assets.extra" / "tf_serving_warmup_requests").write_bytes(
        b"".join(write(predict_log({"inputs": [row]})) for row in rows)
    )
    environment = {
        "container_uri": CONTAINER,
        "tensorflow": "2.8.0",
        "struct2tensor": "0.39.0",
        "tensorflow-addons": "0.16.1",
    }
    (root / "environment.json").write_text(json.dumps(environment))
    (root / "instance.yaml").write_text(INSTANCE)
    (root / "prediction_schema.yaml").write_text(PREDICTION)
    for name in ("final_model_structure.pb", "transformations.pb", "tables_server_metadata.pb"):
        (root / name).write_bytes(b"\x0a\x00")
    return root


def tf_js(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shard = "group1-shard1of1.bin"
    document = {
        "format": "graph-model",
        "modelTopology": {"node": []},
        "weightsManifest": [{"paths": [shard], "weights": []}],
    }
    (folder / "model.json").write_text(json.dumps(document))
    (folder / shard).write_bytes(b"\0" * 16)
    (folder / "dict.txt").write_text("cat\ndog")
    return folder
