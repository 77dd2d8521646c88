"""TensorFlow Serving's list of models: what is read, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.repository import tf_model_list
from crossfade.serving.wire import tf_model_server as wire


def listed(text: str) -> Any:
    return text_format.Parse(text, wire.ModelServerConfig())


def one(text: str) -> dict[str, Any]:
    """The settings of the only model of a list."""
    head = 'name: "m" base_path: "/m" '
    (place,) = tf_model_list.places(
        listed(f"model_config_list {{ config {{ {head} {text} }} }}")
    ).values()
    assert place.location == "/m"
    return dict(place.settings)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", {}),
        ("model_version_policy { }", {}),
        ("model_version_policy { latest { } }", {"latest": 1}),
        ("model_version_policy { latest { num_versions: 3 } }", {"latest": 3}),
        ("model_version_policy { all { } }", {"all": True}),
        ("model_version_policy: { specific: { versions: 2 versions: 4 } }", {"specific": [2, 4]}),
        ("model_version_policy { specific { versions: [7] } }", {"specific": [7]}),
    ],
)
def test_policies(text: str, policy: dict[str, Any]) -> None:
    settings = one(text)
    assert settings["version_policy"] == policy
    ModelConfig.model_validate(settings)


def test_labels() -> None:
    text = "version_labels { key: 'stable' value: 1 } version_labels { key: 'canary' value: 2 }"
    assert one(text)["labels"] == {"stable": 1, "canary": 2}


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ('model_platform: "tensorflow"', None),
        ("model_type: TENSORFLOW", None),
        ('model_platform: "tflite"', "tflite"),
        ('model_platform: "onnx"', "onnxruntime_onnx"),
    ],
)
def test_platforms(text: str, platform: str | None) -> None:
    assert one(text).get("platform") == platform


def test_logging_has_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    one("logging_config { sampling_config { sampling_rate: 0.1 } }")
    assert "logging_config has no effect" in caplog.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "give a model_config_list"),
        ("custom_model_config { }", "custom_model_config is no list of models"),
        ("model_config_list { config { } }", "names no model"),
        ("model_config_list { config { name: 'a' } }", "to have an absolute path or URI"),
        ("model_config_list { config { name: 'a' base_path: './a' } }", "got base_path()=./a"),
        ("model_config_list { config { name: '..' base_path: '/a' } }", "path traversal"),
        ("model_config_list { config { name: 'a\\0' base_path: '/a' } }", "not a model name"),
        (
            "model_config_list { config { name: 'a' base_path: '/a' model_platform: 'x\\n' } }",
            "unknown platform 'x\\n'",
        ),
        (
            "model_config_list { config { name: 'a' base_path: '/a' model_type: OTHER } }",
            "model_type OTHER",
        ),
    ],
)
def test_refusals(text: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        tf_model_list.places(listed(text))
    assert says in caught.value.message


def test_text(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    for content in (b"model_config_list {", b"x: 1", b"\xff", b"model_config_list: 3"):
        file.write_bytes(content)
        with pytest.raises(InvalidArgument, match="Error parsing text-format tensorflow"):
            tf_model_list.read_text(file, wire.ModelServerConfig())
    with pytest.raises(InvalidArgument, match="cannot be read: No such file"):
        tf_model_list.read_text(tmp_path / "none", wire.ModelServerConfig())
    file.write_text("# a comment\nmodel_config_list { config { name: 'a', base_path: '/a' }; }")
    found = tf_model_list.read_text(file, wire.ModelServerConfig())
    assert list(tf_model_list.places(found)) == ["a"]


def test_one_model() -> None:
    found = tf_model_list.one_model("half", "/models/half")
    assert tf_model_list.places(found)["half"].location == "/models/half"
    assert tf_model_list.platforms(found) == {"half": "tensorflow"}


texts = st.text(max_size=8)
entries = st.builds(
    lambda name, path, platform, labels, versions: wire.ModelConfig(
        name=name,
        base_path=path,
        model_platform=platform,
        version_labels=labels,
        model_version_policy={"specific": {"versions": versions}},
    ),
    st.sampled_from(["a", "b", "a/b", ""]) | texts,
    st.sampled_from(["/a", "gs://b/c", "c", ""]) | texts,
    st.sampled_from(["tensorflow", "", "tflite"]) | texts,
    st.dictionaries(texts, st.integers(-(2**63), 2**63 - 1), max_size=3),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
)


@given(st.lists(entries, max_size=3))
def test_any_list_is_a_configuration_or_an_error(made: list[Any]) -> None:
    message = wire.ModelServerConfig(model_config_list={"config": made})
    try:
        places = tf_model_list.places(message)
    except InvalidArgument:
        return
    assert list(places) == [entry.name for entry in made]
    for place in places.values():
        ModelConfig.model_validate(dict(place.settings))
