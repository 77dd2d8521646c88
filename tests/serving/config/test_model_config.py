"""``model.yaml``: every key, every limit, and what is said about a mistake."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.serving.config.model_config import (
    Batching,
    Cache,
    DeclaredTensor,
    Isolation,
    ModelConfig,
    Queue,
    SequenceControl,
    SequenceState,
    Sequencing,
    Slo,
    VersionPolicy,
    Warmup,
    build,
    parse,
)
from crossfade.serving.config.processing_config import Postprocess, Preprocess, Resize

EVERYTHING = """
platform: onnxruntime_onnx
version_policy: {latest: 2}
labels: {stable: 3, canary: 4}
max_batch_size: 16
batching: {max_size: 8, max_delay_ms: 2.5}
instances: 3
queue: {max_size: 10, timeout_ms: 250, priority_levels: 5, default_priority: 3}
slo: {p99_ms: 30}
warmup:
  - {count: 2, inputs: {x: [[1, 2]]}, signature: other}
default_filename: net.onnx
inputs:
  - {name: x, dtype: FP32, dims: [-1, 2], reshape: [2, -1]}
outputs:
  - {name: y, labels: [a, b]}
  - {name: z, labels_file: labels.txt}
sequence:
  max_idle_ms: 5000
  max_sequences: 64
  controls: [{input: START, kind: start, dtype: INT32, false_true: [0, 1]}]
  states: [{input: h, output: h_next, initial: 1}]
decoupled: false
task: detection
preprocess: {name: image_bytes, mean: 127.5, resize: {fit: letterbox}}
postprocess: {labels: [cat, dog], iou_threshold: 0.5}
table: null
cache: null
ensemble: null
isolation: {environment: e, memory_limit_bytes: 1000, load_timeout_s: 5, run_timeout_s: 2.5}
options: {intra_op_threads: 2}
"""


def fault(text: str) -> str:
    with pytest.raises(LoadFailed) as caught:
        parse(text, "model.yaml")
    assert caught.value.message.startswith("model.yaml")
    return caught.value.message


def test_every_key() -> None:
    assert parse(EVERYTHING, "model.yaml") == ModelConfig(
        platform="onnxruntime_onnx",
        version_policy=VersionPolicy(latest=2),
        labels={"stable": 3, "canary": 4},
        max_batch_size=16,
        batching=Batching(max_size=8, max_delay_ms=2.5),
        instances=3,
        queue=Queue(max_size=10, timeout_ms=250, priority_levels=5, default_priority=3),
        slo=Slo(p99_ms=30),
        warmup=(Warmup(count=2, inputs={"x": [[1, 2]]}, signature="other"),),
        default_filename="net.onnx",
        inputs=(DeclaredTensor(name="x", dtype="FP32", dims=(-1, 2), reshape=(2, -1)),),
        outputs=(
            DeclaredTensor(name="y", labels=("a", "b")),
            DeclaredTensor(name="z", labels_file="labels.txt"),
        ),
        sequence=Sequencing(
            max_idle_ms=5000,
            max_sequences=64,
            controls=(
                SequenceControl(input="START", kind="start", dtype="INT32", false_true=(0, 1)),
            ),
            states=(SequenceState(input="h", output="h_next", initial=1),),
        ),
        task="detection",
        preprocess=Preprocess(name="image_bytes", mean=(127.5,), resize=Resize(fit="letterbox")),
        postprocess=Postprocess(labels=("cat", "dog"), iou_threshold=0.5),
        isolation=Isolation(
            environment="e", memory_limit_bytes=1000, load_timeout_s=5, run_timeout_s=2.5
        ),
        options={"intra_op_threads": 2},
    )


def test_what_does_not_go_together() -> None:
    assert "do not go together" in fault("decoupled: true\nsequence: {}")
    assert "on its request alone" in fault("cache: {}\nsequence: {}")
    assert "on its request alone" in fault("cache: {}\ndecoupled: true")


def test_a_cache() -> None:
    def cache(text: str) -> Cache | None:
        return parse(f"cache: {text}", "model.yaml").cache

    assert cache("{}") == Cache(max_bytes=64 << 20, ttl_s=None)
    assert cache("{max_bytes: 1KiB, ttl_s: 1.5}") == Cache(max_bytes=1024, ttl_s=1.5)
    assert "amount of memory" in fault("cache: {max_bytes: much}")
    assert "cache.ttl_s" in fault("cache: {ttl_s: 0}")


def test_every_key_is_in_the_example_above() -> None:
    assert set(yaml.safe_load(EVERYTHING)) == set(ModelConfig.model_fields)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_nothing_said_is_all_derived(text: str) -> None:
    config = parse(text, "model.yaml")
    assert config == ModelConfig()
    assert config.version_policy == VersionPolicy()
    assert (config.max_batch_size, config.batching, config.instances) == (None, None, None)
    assert config.queue == Queue(max_size=1024, timeout_ms=None, priority_levels=0)


def test_a_configuration_cannot_be_changed() -> None:
    config = parse("instances: 2", "model.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.instances = 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version_policy: all", VersionPolicy(all=True)),
        ("version_policy: latest", VersionPolicy(latest=1)),
        ("version_policy: {all: true}", VersionPolicy(all=True)),
        ("version_policy: {latest: 3}", VersionPolicy(latest=3)),
        ("version_policy: {specific: [1, 5]}", VersionPolicy(specific=(1, 5))),
    ],
)
def test_version_policies(text: str, expected: VersionPolicy) -> None:
    assert parse(text, "model.yaml").version_policy == expected


def test_auto_batching_is_a_word_or_a_key() -> None:
    assert parse("batching: auto", "m").batching == Batching(auto=True)
    assert parse("batching: {auto: true}", "m").batching == Batching(auto=True)


@pytest.mark.parametrize(
    ("text", "place", "nearest"),
    [
        ("platfrom: tflite", "platfrom", "platform"),
        ("max_batchsize: 4", "max_batchsize", "max_batch_size"),
        ("instance: 4", "instance", "instances"),
        ("batching: {max_sise: 4}", "batching.max_sise", "max_size"),
        ("batching: {max_delay: 4}", "batching.max_delay", "max_delay_ms"),
        ("queue: {timeout: 4}", "queue.timeout", "timeout_ms"),
        ("queue: {priority_level: 4}", "queue.priority_level", "priority_levels"),
        ("slo: {p99: 4}", "slo.p99", "p99_ms"),
        ("version_policy: {last: 4}", "version_policy.last", "latest"),
        ("warmup: [{}, {input: {}}]", "warmup.1.input", "inputs"),
        ("inputs: [{name: x, dim: [1]}]", "inputs.0.dim", "dims"),
        ("outputs: [{name: x, label_file: l}]", "outputs.0.label_file", "labels_file"),
    ],
)
def test_an_unknown_key_names_the_nearest_one_of_its_section(
    text: str, place: str, nearest: str
) -> None:
    assert f"key '{place}' is unknown; did you mean '{nearest}'?" in fault(text)


def test_an_unknown_key_like_no_other_lists_those_of_its_section() -> None:
    message = fault("version_policy: {zzz: 1}")
    assert (
        message
        == "model.yaml: key 'version_policy.zzz' is unknown; known are latest, all, specific"
    )


def test_all_faults_are_told_at_once() -> None:
    message = fault("instances: 0\nqueue: {max_size: none}\nplatfrom: x\n")
    for part in ("'instances': ", "'queue.max_size': ", "'platfrom' is unknown"):
        assert part in message


@pytest.mark.parametrize(
    "text",
    [
        "instances: 0",
        "instances: 1025",
        "instances: many",
        "instances: 1.5",
        "max_batch_size: -1",
        "batching: {max_size: 0}",
        "batching: {max_delay_ms: -1}",
        "batching: {max_delay_ms: 10001}",
        "batching: {max_delay_ms: .nan}",
        "batching: {max_delay_ms: .inf}",
        "batching: fast",
        "queue: {max_size: 0}",
        "queue: {timeout_ms: 0}",
        "queue: {timeout_ms: -5}",
        "queue: {timeout_ms: .inf}",
        "queue: {priority_levels: -1, default_priority: 1}",
        "queue: {priority_levels: 1001, default_priority: 1}",
        "queue: {default_priority: -1}",
        "slo: {p99_ms: 0}",
        "slo: {p99_ms: .nan}",
        "slo: {}",
        "version_policy: {latest: 0}",
        "version_policy: {specific: [0]}",
        "version_policy: {specific: [-1]}",
        "version_policy: {all: false}",
        "version_policy: {latest: 1, all: true}",
        "version_policy: {latest: 1, specific: [1]}",
        "version_policy: some",
        "labels: {stable: 0}",
        "labels: {'': 1}",
        "labels: [stable]",
        "warmup: [{count: 0}]",
        "inputs: [{dtype: FP32}]",
        "inputs: [{name: x, dtype: FP31}]",
        "inputs: [{name: x, dims: [-2]}]",
        "outputs: [{name: x, reshape: [-2]}]",
        "default_filename: ''",
        "default_filename: ../../etc/passwd",
        "default_filename: a/b",
        "default_filename: a\\b",
        "default_filename: ..",
        "default_filename: .",
    ],
)
def test_values_out_of_their_limits(text: str) -> None:
    key = text.partition(":")[0]
    assert f"model.yaml: key '{key}" in fault(text)


def test_an_unknown_dtype_lists_those_that_are_known() -> None:
    message = fault("inputs: [{name: x, dtype: float32}]")
    assert "'inputs.0.dtype': unknown dtype; one of BOOL, UINT8" in message


@pytest.mark.parametrize(
    "text",
    [
        "queue: {priority_levels: 3}",
        "queue: {priority_levels: 3, default_priority: 0}",
        "queue: {priority_levels: 3, default_priority: 4}",
    ],
)
def test_the_default_priority_is_one_of_the_levels(text: str) -> None:
    """Else requests that say nothing would overtake those that are urgent."""
    assert "default_priority must be 1 to 3" in fault(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [1", "not YAML"),
        ("a: b: c", "line 1: not YAML"),
        ("x: 1\n\ty: 2", "line 2: not YAML"),
        ("labels: {stable: 2020-13-45}", "not YAML"),
        ("instances: !!int many", "not YAML"),
        ("x: !!python/object/apply:os.system [id]", "not YAML"),
        ("x: \x00", "not YAML"),
        ("[" * 1200, "not YAML"),
        ("- a\n- b", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("7", "must be a mapping"),
        ("1: x", "'1': "),
        ("{[a]: 1}", "not YAML"),
    ],
)
def test_what_is_no_configuration(text: str, part: str) -> None:
    assert part in fault(text)


@given(text=st.text(st.sampled_from("abc{}[]:,-'\"!&*|>%@`#\n\t 0123456789._~?=<")))
def test_noise_never_does_worse_than_an_error(text: str) -> None:
    with contextlib.suppress(LoadFailed):
        assert isinstance(parse(text, "model.yaml"), ModelConfig)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    PLAIN, lambda v: st.lists(v, max_size=2) | st.dictionaries(st.text(max_size=5), v, max_size=2)
)


@given(raw=st.dictionaries(st.sampled_from(sorted(ModelConfig.model_fields)), VALUES, max_size=4))
def test_any_value_of_any_key_is_taken_or_refused(raw: dict[str, Any]) -> None:
    with contextlib.suppress(LoadFailed):
        assert isinstance(build(raw, "f"), ModelConfig)


def test_what_is_written_of_a_configuration_is_read_as_the_same() -> None:
    config = parse(EVERYTHING, "model.yaml")
    plain = config.model_dump(mode="json", exclude_none=True)
    assert parse(yaml.safe_dump(plain), "model.yaml") == config
