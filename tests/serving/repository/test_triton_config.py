"""``config.pbtxt``: every field that is read, each that is refused, and Triton's own samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed
from crossfade.serving.config.ensemble_config import Pipeline, Step
from crossfade.serving.config.model_config import (
    Batching,
    Cache,
    DeclaredTensor,
    ModelConfig,
    Queue,
    VersionPolicy,
    Warmup,
)
from crossfade.serving.repository.triton_config import from_json, parse
from crossfade.serving.repository.triton_dtypes import WIRE_DTYPES
from crossfade.serving.wire import model_config as wire


def read(text: str) -> ModelConfig:
    return parse(text, "config.pbtxt")


def fault(text: str) -> str:
    with pytest.raises(LoadFailed) as caught:
        read(text)
    assert caught.value.message.startswith("config.pbtxt: ")
    return caught.value.message


EVERYTHING = """
name: "whatever"  # the folder's name counts
platform: "onnxruntime_onnx"
max_batch_size: 8
version_policy: { latest { num_versions: 2 } }
input [
  { name: "a" data_type: TYPE_FP32 dims: [ -1, 3 ] },
  { name: "b" data_type: TYPE_STRING dims: [ 4 ] reshape { shape: [ 2, 2 ] } }
]
output [
  { name: "y" data_type: TYPE_BF16 dims: [ 5 ] label_filename: "labels.txt" },
  { name: "z" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } }
]
instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_GPU }, { count: 3 } ]
default_model_filename: "net.onnx"
dynamic_batching {
  preferred_batch_size: [ 2, 4 ]
  max_queue_delay_microseconds: 2500
  priority_levels: 5
  default_priority_level: 3
  default_queue_policy { max_queue_size: 10 default_timeout_microseconds: 250000 }
}
parameters { key: "intra_op_thread_count" value { string_value: "4" } }
parameters { key: "something else" value { string_value: "x" } }
model_warmup { name: "w" count: 3 batch_size: 1 }
model_warmup { name: "v" }
"""


def test_every_field() -> None:
    assert read(EVERYTHING) == ModelConfig(
        platform="onnxruntime_onnx",
        max_batch_size=8,
        version_policy=VersionPolicy(latest=2),
        inputs=(
            DeclaredTensor(name="a", dtype="FP32", dims=(-1, 3)),
            DeclaredTensor(name="b", dtype="BYTES", dims=(4,), reshape=(2, 2)),
        ),
        outputs=(
            DeclaredTensor(name="y", dtype="BF16", dims=(5,), labels_file="labels.txt"),
            DeclaredTensor(name="z", dtype="INT64", dims=(1,), reshape=()),
        ),
        instances=6,
        default_filename="net.onnx",
        batching=Batching(max_size=8, max_delay_ms=2.5),
        queue=Queue(max_size=10, timeout_ms=250, priority_levels=5, default_priority=3),
        options={"intra_op_threads": 4},
        warmup=(Warmup(count=3), Warmup(count=1)),
    )


def test_nothing_said() -> None:
    """Triton does not stack unless told so, and a batch dimension has to be declared."""
    assert read("") == ModelConfig(max_batch_size=0, batching=Batching(max_size=1))


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ('platform: "onnxruntime_onnx"', "onnxruntime_onnx"),
        ('backend: "onnxruntime"', "onnxruntime_onnx"),
        ('platform: "tensorflow_savedmodel"', "tensorflow_savedmodel"),
        ('backend: "tensorflow"', "tensorflow_savedmodel"),
        ('backend: "onnxruntime" platform: "tensorflow_savedmodel"', "onnxruntime_onnx"),
    ],
)
def test_platforms_and_backends(text: str, platform: str) -> None:
    assert read(text).platform == platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", VersionPolicy()),
        ("version_policy { all { } }", VersionPolicy(all=True)),
        ("version_policy { latest { } }", VersionPolicy(latest=1)),
        ("version_policy { latest { num_versions: 4 } }", VersionPolicy(latest=4)),
        ("version_policy { specific { versions: [1, 3] } }", VersionPolicy(specific=(1, 3))),
        ("version_policy { }", VersionPolicy(latest=1)),
    ],
)
def test_version_policies(text: str, expected: VersionPolicy) -> None:
    assert read(text).version_policy == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_batch_size: 8", Batching(max_size=1)),
        ("max_batch_size: 8 dynamic_batching { }", Batching(max_size=8)),
        (
            "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 100 }",
            Batching(max_size=8, max_delay_ms=0.1),
        ),
        ("dynamic_batching { }", Batching(max_size=1)),
    ],
)
def test_batching(text: str, expected: Batching) -> None:
    assert read(text).batching == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dynamic_batching { }", Queue()),
        (
            "dynamic_batching { default_queue_policy { max_queue_size: 5 } }",
            Queue(max_size=5),
        ),
        (
            "dynamic_batching { default_queue_policy { default_timeout_microseconds: 1500 } }",
            Queue(timeout_ms=1.5),
        ),
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 1 }",
            Queue(priority_levels=2, default_priority=1),
        ),
    ],
)
def test_queues(text: str, expected: Queue) -> None:
    assert read(text).queue == expected


@pytest.mark.parametrize(
    ("text", "instances"),
    [
        ("", None),
        ("instance_group { }", 1),
        ("instance_group { count: 4 }", 4),
        ("instance_group { count: 2 } instance_group { count: 1 }", 3),
    ],
)
def test_instances(text: str, instances: int | None) -> None:
    assert read(text).instances == instances


@pytest.mark.parametrize(
    ("count", "options"),
    [
        ("4", {"intra_op_threads": 4}),
        ("0", {}),  # whatever the library thinks best
        ("", {}),
        ("many", {}),
        ("-1", {}),
        ("²", {}),
        ("9" * 5000, {}),
    ],
)
def test_threads(count: str, options: dict[str, Any]) -> None:
    text = f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{count}" }} }}'
    assert read(text).options == options


@pytest.mark.parametrize("name", sorted(n for n in vars(wire) if n.startswith("TYPE_")))
def test_every_data_type_has_a_name_of_the_protocol(name: str) -> None:
    (declared,) = read(f'input {{ name: "x" data_type: {name} dims: 1 }}').inputs
    if name == "TYPE_INVALID":
        assert declared.dtype is None
    else:
        assert declared.dtype is not None
        assert WIRE_DTYPES[declared.dtype] == getattr(wire, name)


def test_every_dtype_of_ours_can_be_written() -> None:
    assert WIRE_DTYPES.keys() == NUMPY.keys()
    assert len(set(WIRE_DTYPES.values())) == len(NUMPY)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            'platform: "ensemble" input { name: "i" dims: [1] reshape { shape: [1, 1] } }'
            ' ensemble_scheduling { step { model_name: "" } }',
            "ensemble.steps.0.model",
        ),
        ("ensemble_scheduling { }", "the ensemble has no steps"),
        ('platform: "ensemble"', "the ensemble has no steps"),
        ("sequence_batching { iterative_sequence: true }", "iterative sequences are not supported"),
        ("sequence_batching { control_input { name: 'S' } }", "'S' must have one control"),
        (
            "sequence_batching { control_input { name: 'S' control { kind: 0 } } }",
            "'S' must have one of int32_false_true",
        ),
        (
            "sequence_batching { state { input_name: 'I' output_name: 'O'"
            " initial_state { data_file: 'x' } } }",
            "starts from a file",
        ),
        ('platform: "caffe2_netdef"', "unknown platform 'caffe2_netdef'"),
        ('backend: "python"', "Triton's Python backend is not supported; rewrite model.py"),
        ("max_batch_size: -1", "'max_batch_size': "),
        ('input { name: "x" dims: -2 }', "inputs.0.dims"),
        ('default_model_filename: "../x"', "'default_filename': must be a file name"),
        ("version_policy { specific { versions: 0 } }", "version_policy.specific"),
        ("instance_group { count: 2000 }", "'instances': "),
        (
            "dynamic_batching { max_queue_delay_microseconds: 99000000 }",
            "'batching.max_delay_ms': ",
        ),
        ("dynamic_batching { priority_levels: 2 }", "default_priority must be 1 to 2"),
        ("max_batch_sice: 1", 'no field named "max_batch_sice"'),
        ("max_batch_size: one", "1:17"),
        ("input {", "1:7"),
        ('input { name: "x" data_type: TYPE_FP31 }', "TYPE_FP31"),
        ("{}", "1:1"),
    ],
)
def test_what_is_refused_is_named(text: str, part: str) -> None:
    assert part in fault(text)


def test_tritons_own_samples(shared: Path) -> None:
    """Whatever stands in them is read, or refused by name."""
    files = sorted((shared / "triton" / "model_repository").glob("*/config.pbtxt"))
    assert files
    read_ones: dict[str, ModelConfig] = {}
    refused: dict[str, str] = {}
    for file in files:
        try:
            read_ones[file.parent.name] = read(file.read_text())
        except LoadFailed as error:
            refused[file.parent.name] = error.message
    reasons = ("not supported", "unknown platform")
    assert all(any(reason in message for reason in reasons) for message in refused.values())
    simple = read_ones["simple"]
    assert simple.max_batch_size == 8
    assert [t.name for t in simple.inputs] == ["INPUT0", "INPUT1"]
    assert {t.dims for t in simple.inputs} == {(16,)}


def test_a_configuration_as_json() -> None:
    """What a client sends with a load request, with the names of the JSON form or the file's."""
    document = {
        "maxBatchSize": 8,
        "backend": "fake",
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["2"]}],
        "dynamic_batching": {"max_queue_delay_microseconds": 500},
    }
    config = from_json(document, "m")
    assert (config.max_batch_size, config.platform) == (8, "fake")
    assert config.batching == Batching(max_size=8, max_delay_ms=0.5)
    assert config.inputs[0].dims == (2,)
    assert from_json({"name": "m"}, "m") == from_json({}, "m") == read("")


def test_a_response_cache() -> None:
    assert read("response_cache { enable: true }").cache == Cache()
    assert read("response_cache { enable: false }").cache is None
    with pytest.raises(LoadFailed, match="cache does not go together with sequence"):
        read("response_cache { enable: true } sequence_batching { direct {} }")


def _control(**control: int) -> dict[str, Any]:
    return {"control_input": [{"name": "S", "control": [control]}]}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"nothing": 1}, 'no field named "nothing"'),
        ({"input": 7}, "input"),
        ({"max_batch_size": "many"}, "max_batch_size"),
        ({"max_batch_size": -1}, "max_batch_size"),
        ({"name": "other"}, "is not the model's"),
        ({"ensemble_scheduling": {}}, "ensemble"),
        ({"input": [{"name": "x", "data_type": 99}]}, "no data type 99"),
        ({"sequence_batching": _control(kind=99)}, "no kind of control"),
        ({"sequence_batching": _control(kind=3, data_type=99)}, "no data type 99"),
        ({"\r\n\u202e": 1}, r"\\r\\n\\u202e"),
    ],
)
def test_a_configuration_that_cannot_be_used(document: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        from_json(document, "m")


def test_an_ensemble_is_a_pipeline() -> None:
    config = parse(
        """
        platform: "ensemble"
        max_batch_size: 8
        input { name: "IN" data_type: TYPE_FP32 dims: [2] }
        output { name: "OUT" data_type: TYPE_FP32 dims: [2] }
        instance_group { count: 2 }
        ensemble_scheduling {
          step {
            model_name: "a" model_version: -1
            input_map { key: "x" value: "IN" } output_map { key: "y" value: "mid" }
          }
          step {
            model_name: "a" model_version: 3
            input_map { key: "x" value: "mid" } output_map { key: "y" value: "OUT" }
          }
        }
        """,
        "config.pbtxt",
    )
    assert config == ModelConfig(
        max_batch_size=8,
        inputs=(DeclaredTensor(name="IN", dtype="FP32", dims=(2,)),),
        outputs=(DeclaredTensor(name="OUT", dtype="FP32", dims=(2,)),),
        ensemble=Pipeline(
            kind="pipeline",
            outputs=("OUT",),
            steps=(
                Step(model="a", name="a#0", inputs={"x": "IN"}, outputs={"y": "mid"}),
                Step(model="a", name="a#1", version=3, inputs={"x": "mid"}, outputs={"y": "OUT"}),
            ),
        ),
    )
