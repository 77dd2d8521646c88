"""Inference over gRPC: every dtype in every form, right and wrong, and all that goes with it."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from crossfade.runtimes.core.dtypes import NUMPY
from tests.e2e.differential.models import DTYPES
from tests.e2e.differential.peers import Case, Peer

Parameter = pb.InferParameter
FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
OTHER = dict(zip(DTYPES, [*list(DTYPES)[1:], "BOOL"], strict=True))


def values(dtype: str, count: int) -> list[Any]:
    """So many values that a dtype can hold, both ends among them."""
    if dtype == "BYTES":
        return [bytes([65 + i]) * (i % 3) for i in range(count)]
    if dtype == "BOOL":
        return [i % 2 == 0 for i in range(count)]
    if "INT" in dtype:
        limits = np.iinfo(NUMPY[dtype])
        return [(limits.min, limits.max, 1)[i % 3] for i in range(count)]
    return [(-1.5, 0.25, 1e4)[i % 3] for i in range(count)]


def raw(dtype: str, found: Sequence[Any]) -> bytes:
    """Their bytes on the wire."""
    if dtype == "BYTES":
        return b"".join(struct.pack("<I", len(v)) + v for v in found)
    kind = ml_dtypes.bfloat16 if dtype == "BF16" else NUMPY[dtype]
    return np.array(found, dtype=kind).tobytes()


def request(
    model: str,
    inputs: Sequence[tuple[str, str, Sequence[int]]],
    raws: Sequence[bytes] = (),
    outputs: Sequence[str] = (),
    **fields: Any,
) -> Any:
    """A ``ModelInferRequest``."""
    made = pb.ModelInferRequest(model_name=model, raw_input_contents=raws, **fields)
    for name, dtype, shape in inputs:
        made.inputs.add(name=name, datatype=dtype, shape=shape)
    for name in outputs:
        made.outputs.add(name=name)
    return made


def echo(dtype: str, shape: Sequence[int], data: bytes | None, declared: str = "") -> Any:
    raws = [] if data is None else [data]
    return request(f"echo_{dtype}", [("x", declared or dtype, shape)], raws)


def typed(dtype: str, shape: Sequence[int], field: str, found: Sequence[Any]) -> Any:
    made = echo(dtype, shape, None)
    getattr(made.inputs[0].contents, field).extend(found)
    return made


def infer(name: str, made: Any) -> Case:
    return Case(f"grpc/{name}", lambda peer: [peer.infer(made)])


def of_dtype(dtype: str) -> Iterator[Case]:
    """Good and bad tensors of one dtype."""
    good = raw(dtype, values(dtype, 2))
    for rows in (1, 3, 8):
        data = raw(dtype, values(dtype, rows * 2))
        yield infer(f"{dtype}/raw-{rows}-rows", echo(dtype, [rows, 2], data))
    wrong = {
        "0-rows": ([0, 2], b""),
        "9-rows": ([9, 2], raw(dtype, values(dtype, 18))),
        "inner": ([1, 3], raw(dtype, values(dtype, 3))),
        "dimension-less": ([2], good),
        "dimension-more": ([1, 2, 1], good),
        "scalar": ([], raw(dtype, values(dtype, 1))),
        "negative-rows": ([-1, 2], good),
        "negative-both": ([-1, -2], good),
        "huge": ([2**40, 2], good),
        "wraps": ([2**62, 4], b""),
        "byte-less": ([1, 2], good[:-1]),
        "byte-more": ([1, 2], good + b"\0"),
        "rows-more": ([1, 2], good * 2),
        "rows-less": ([2, 2], good),
        "empty-raw": ([1, 2], b""),
    }
    for name, (shape, data) in wrong.items():
        yield infer(f"{dtype}/{name}", echo(dtype, shape, data))
    yield infer(f"{dtype}/nothing", echo(dtype, [1, 2], None))
    yield infer(f"{dtype}/as-{OTHER[dtype]}", echo(dtype, [1, 2], good, OTHER[dtype]))
    yield infer(f"{dtype}/lower-case", echo(dtype, [1, 2], good, dtype.lower()))
    field = FIELDS.get(dtype)
    if field is None:
        yield infer(f"{dtype}/typed", typed(dtype, [1, 2], "fp32_contents", [1, 2]))
        return
    for rows in (1, 3):
        made = typed(dtype, [rows, 2], field, values(dtype, rows * 2))
        yield infer(f"{dtype}/typed-{rows}-rows", made)
    yield infer(f"{dtype}/typed-less", typed(dtype, [1, 2], field, values(dtype, 1)))
    yield infer(f"{dtype}/typed-more", typed(dtype, [1, 2], field, values(dtype, 3)))
    yield infer(f"{dtype}/typed-empty", typed(dtype, [1, 2], field, []))
    wrong_field = "fp64_contents" if field != "fp64_contents" else "fp32_contents"
    yield infer(f"{dtype}/typed-elsewhere", typed(dtype, [1, 2], wrong_field, [1, 0]))
    both = typed(dtype, [1, 2], field, values(dtype, 2))
    both.raw_input_contents.append(good)
    yield infer(f"{dtype}/typed-and-raw", both)
    two = typed(dtype, [1, 2], field, values(dtype, 2))
    getattr(two.inputs[0].contents, wrong_field).extend([1, 0])
    yield infer(f"{dtype}/typed-twice", two)


def narrow() -> Iterator[Case]:
    """Typed values that fit the field and not the dtype."""
    for dtype, field, found in (
        ("INT8", "int_contents", [128, -129]),
        ("INT16", "int_contents", [32768, 0]),
        ("UINT8", "uint_contents", [256, 0]),
        ("UINT16", "uint_contents", [65536, 0]),
    ):
        yield infer(f"narrow/{dtype}", typed(dtype, [1, 2], field, found))


ROW = np.arange(16, dtype=np.int32).tobytes()
PAIR = [("INPUT0", "INT32", [1, 16]), ("INPUT1", "INT32", [1, 16])]


def simple(**fields: Any) -> Any:
    """A good request for ``simple``, or one with other fields."""
    inputs, raws = fields.pop("inputs", PAIR), fields.pop("raws", [ROW, ROW])
    return request(fields.pop("model", "simple"), inputs, raws, **fields)


def names() -> Iterator[Case]:
    """Inputs and outputs that are missing, unknown, twice, in another order."""
    first, second = PAIR
    other = ("OTHER", "INT32", [1, 16])
    wide = ("INPUT0", "INT32", [2, 16])
    made = {
        "good": simple(),
        "swapped": simple(inputs=[second, first]),
        "missing": simple(inputs=[first], raws=[ROW]),
        "none": simple(inputs=[], raws=[]),
        "unknown-for-one": simple(inputs=[first, other]),
        "unknown-more": simple(inputs=[first, second, other], raws=[ROW] * 3),
        "twice": simple(inputs=[first, first]),
        "twice-and-all": simple(inputs=[first, second, first], raws=[ROW] * 3),
        "no-name": simple(inputs=[first, ("", "INT32", [1, 16])]),
        "other-case": simple(inputs=[first, ("input1", "INT32", [1, 16])]),
        "two-batches": simple(inputs=[wide, second], raws=[ROW * 2, ROW]),
        "raw-less": simple(raws=[ROW]),
        "raw-more": simple(raws=[ROW, ROW, ROW]),
        "raw-more-empty": simple(raws=[ROW, ROW, b""]),
        "one-output": simple(outputs=["OUTPUT1"]),
        "outputs-swapped": simple(outputs=["OUTPUT1", "OUTPUT0"]),
        "output-unknown": simple(outputs=["OUTPUT9"]),
        "output-unknown-and-good": simple(outputs=["OUTPUT0", "OUTPUT9"]),
        "output-twice": simple(outputs=["OUTPUT0", "OUTPUT0"]),
        "output-no-name": simple(outputs=[""]),
        "output-is-input": simple(outputs=["INPUT0"]),
    }
    for name, each in made.items():
        yield infer(f"names/{name}", each)
    a, b = ("a", "FP32", [2, 3]), ("b", "BYTES", [1])
    floats, text = np.arange(6, dtype=np.float32).tobytes(), raw("BYTES", [b"text"])
    mixed = {
        "good": request("pair", [a, b], [floats, text]),
        "swapped": request("pair", [b, a], [text, floats]),
        "raws-swapped": request("pair", [a, b], [text, floats]),
        "wide": request("pair", [("a", "FP32", [2, 30]), b], [floats * 10, text]),
        "zero": request("pair", [("a", "FP32", [2, 0]), b], [b"", text]),
        "fixed-wrong": request("pair", [("a", "FP32", [3, 2]), b], [floats, text]),
        "rank": request("pair", [("a", "FP32", [1, 2, 3]), b], [floats, text]),
        "one-typed": request("pair", [a, b], [floats]),
    }
    mixed["one-typed"].inputs[1].contents.bytes_contents.append(b"text")
    for name, each in mixed.items():
        yield infer(f"pair/{name}", each)
    for shape in ([1, 2, 3], [4, 1, 1], [5, 1, 1], [1, 0, 3], [1, 6], [2, 3], [1, 1, 2, 3], [6]):
        size = int(np.prod(shape)) * 4
        made_ = request("flex", [("x", "FP32", shape)], [bytes(size)])
        yield infer(f"flex/{'x'.join(map(str, shape))}", made_)


def ids() -> Iterator[Case]:
    for name, text in {
        "plain": "abc",
        "long": "i" * 5000,
        "unicode": "\u202e\u00e9",
        "control": "a\r\nb",
        "zero": "\0",
    }.items():
        yield infer(f"id/{name}", simple(id=text))


KINDS = {
    "bool": Parameter(bool_param=True),
    "int64": Parameter(int64_param=1),
    "int64-0": Parameter(int64_param=0),
    "negative": Parameter(int64_param=-1),
    "max": Parameter(int64_param=2**63 - 1),
    "uint64": Parameter(uint64_param=1),
    "uint64-max": Parameter(uint64_param=2**64 - 1),
    "double": Parameter(double_param=1.0),
    "text": Parameter(string_param="1"),
    "empty-text": Parameter(string_param=""),
    "none": Parameter(),
}
PARAMETERS = (
    "priority",
    "timeout",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "binary_data_output",
    "headers",
    "triton_x",
    "triton_enable_empty_final_response",
    "anything",
    "",
)


def parameters() -> Iterator[Case]:
    """Every parameter of every kind, in the request; some in inputs and outputs."""
    for name, (kind, value) in itertools.product(PARAMETERS, KINDS.items()):
        made = simple()
        made.parameters[name].CopyFrom(value)
        yield infer(f"parameter/{name or 'no-name'}/{kind}", made)
    for kind, value in KINDS.items():
        made = simple()
        made.inputs[0].parameters["anything"].CopyFrom(value)
        yield infer(f"parameter-of-input/anything/{kind}", made)
        made = simple(outputs=["OUTPUT0"])
        made.outputs[0].parameters["anything"].CopyFrom(value)
        yield infer(f"parameter-of-output/anything/{kind}", made)
    for name, value in (
        ("shared_memory_region", Parameter(string_param="nobody")),
        ("shared_memory_byte_size", Parameter(int64_param=64)),
        ("shared_memory_offset", Parameter(int64_param=0)),
    ):
        made = simple()
        made.inputs[0].parameters[name].CopyFrom(value)
        yield infer(f"parameter-of-input/{name}", made)


def classification() -> Iterator[Case]:
    """The best classes, of several models and counts."""
    scores = np.float32([[1, 4, 2, 3], [0.5, -1, 0.5, 1e9]])
    for name, value in {
        **{str(k): Parameter(int64_param=k) for k in (1, 2, 4, 5, 0, -1, 2**31, 2**62)},
        "uint64": Parameter(uint64_param=2),
        "bool": Parameter(bool_param=True),
        "text": Parameter(string_param="2"),
        "double": Parameter(double_param=2),
        "none": Parameter(),
    }.items():
        for rows in (1, 2):
            made = request(
                "scores", [("x", "FP32", [rows, 4])], [scores[:rows].tobytes()], outputs=["y"]
            )
            made.outputs[0].parameters["classification"].CopyFrom(value)
            yield infer(f"classes/{name}/{rows}-rows", made)
    for dtype in DTYPES:
        if dtype == "BYTES":
            continue  # it ends Triton 2.51's process
        made = echo(dtype, [1, 2], raw(dtype, values(dtype, 2)))
        made.outputs.add(name="y").parameters["classification"].int64_param = 2
        yield infer(f"classes/of-{dtype}", made)
    made = request("counts", [("x", "INT32", [4])], [np.int32([3, 9, 9, 1]).tobytes()])
    made.outputs.add(name="y").parameters["classification"].int64_param = 3
    yield infer("classes/without-batch", made)


def failing() -> Iterator[Case]:
    for name in ("fails_invalid", "fails_unavailable", "fails_internal"):
        yield infer(f"failing/{name}", request(name, [("x", "FP32", [1, 2])], [bytes(8)]))


def _step(
    number: int, sequence: int | str | None, start: bool = False, end: bool = False, rows: int = 1
) -> Any:
    data = np.full((rows, 1), number, np.int64).tobytes()
    made = request("sequence", [("x", "INT64", [rows, 1])], [data])
    if isinstance(sequence, str):
        made.parameters["sequence_id"].string_param = sequence
    elif sequence is not None:
        made.parameters["sequence_id"].int64_param = sequence
    if start:
        made.parameters["sequence_start"].bool_param = True
    if end:
        made.parameters["sequence_end"].bool_param = True
    return made


def sequences() -> Iterator[Case]:
    scripts = {
        "three": [_step(1, 5, start=True), _step(2, 5), _step(3, 5, end=True)],
        "one": [_step(1, 6, start=True, end=True)],
        "not-started": [_step(1, 7)],
        "after-its-end": [_step(1, 8, start=True, end=True), _step(2, 8)],
        "no-id": [_step(1, None, start=True)],
        "id-0": [_step(1, 0, start=True, end=True)],
        "empty-id": [_step(1, "", start=True, end=True)],
        "text-id": [_step(1, "abc", start=True, end=True)],
        "started-again": [
            _step(1, 9, start=True), _step(2, 9, start=True), _step(3, 9, end=True)
        ],
        "two-at-once": [
            _step(1, 10, start=True), _step(2, 11, start=True), _step(3, 10, end=True),
            _step(4, 11, end=True),
        ],
        "end-only": [_step(1, 12, end=True)],
        "two-rows": [_step(1, 13, start=True, end=True, rows=2)],
    }  # fmt: skip
    for name, steps in scripts.items():

        def run(peer: Peer, steps: list[Any] = steps) -> list[Any]:
            return [peer.infer(step) for step in steps]

        yield Case(f"grpc/sequence/{name}", run)

        def streamed(peer: Peer, steps: list[Any] = steps) -> list[Any]:
            return peer.stream(steps)

        yield Case(f"stream/sequence/{name}", streamed)


def streams() -> Iterator[Case]:
    empty_final = simple()
    empty_final.parameters["triton_enable_empty_final_response"].bool_param = True
    scripts = {
        "none": [],
        "one": [simple(id="1")],
        "three": [simple(id=str(i)) for i in range(3)],
        "an-error-within": [simple(id="1"), simple(id="2", raws=[ROW]), simple(id="3")],
        "unknown-model": [simple(model="nobody"), simple()],
        "unknown-version": [simple(model_version="9"), simple()],
        "bad-version": [simple(model_version="x"), simple()],
        "empty-final-response": [empty_final],
        "two-models": [simple(), echo("FP32", [1, 2], bytes(8))],
        "failing": [request("fails_invalid", [("x", "FP32", [1, 2])], [bytes(8)]), simple()],
    }
    for name, steps in scripts.items():

        def run(peer: Peer, steps: list[Any] = steps) -> list[Any]:
            return peer.stream(steps)

        yield Case(f"stream/{name}", run)


def decoupled() -> Iterator[Case]:
    """Models that give any number of responses, with and without an empty final one."""

    def repeat(model: str, count: int, final: bool, **fields: Any) -> Any:
        inputs = [("x", "FP32", [2]), ("n", "INT32", [1])]
        raws = [np.float32([1, 2]).tobytes(), np.int32([count]).tobytes()]
        made = request(model, inputs, raws, **fields)
        if final:
            made.parameters["triton_enable_empty_final_response"].bool_param = True
        return made

    for model, final in itertools.product(("repeat", "repeat_fails"), (False, True)):
        for count in (0, 1, 3):
            made = repeat(model, count, final, id="7")
            name = f"{model}/{count}{'-final' * final}"
            yield Case(f"stream/{name}", lambda peer, r=made: peer.stream([r]))
        yield infer(f"{model}/unary{'-final' * final}", repeat(model, 1, final))
    for name, made in {
        "output": repeat("repeat", 2, True, outputs=["y"]),
        "output-unknown": repeat("repeat", 2, True, outputs=["z"]),
        "version": repeat("repeat", 2, True, model_version="1"),
        "version-unknown": repeat("repeat", 2, True, model_version="2"),
        "missing": request("repeat", [("x", "FP32", [2])], [bytes(8)]),
        "final-false": repeat("repeat", 2, True),
    }.items():
        if name == "final-false":
            made.parameters["triton_enable_empty_final_response"].bool_param = False
        yield Case(f"stream/repeat/{name}", lambda peer, r=made: peer.stream([r]))


def cases() -> list[Case]:
    """All of them."""
    parts = (narrow, names, ids, parameters, classification, failing, sequences, streams, decoupled)
    return [
        *itertools.chain.from_iterable(of_dtype(dtype) for dtype in DTYPES),
        *itertools.chain.from_iterable(part() for part in parts),
    ]
