"""TensorFlow Serving's flags: every one honoured, named as without effect, or refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.cli import tf_batching
from crossfade.serving.cli.tf_flags import FLAGS, Flag, Parser, without_effect
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.wire import tf_server_files as wire

ROOT = Path(__file__).parents[2]


def parse(*arguments: str) -> Any:
    return Parser(prog="x").parse_all(arguments)


def other(flag: Flag) -> str:
    """A value that is not the default."""
    if isinstance(flag.default, bool):
        return str(not flag.default).lower()
    if isinstance(flag.default, str):
        return "something"
    return str(flag.default + 1)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_both_forms(flag: Flag, capsys: pytest.CaptureFixture[str]) -> None:
    value = other(flag)
    for arguments in ([f"--{flag.name}={value}"], [f"--{flag.name}", value]):
        if flag.refused:
            with pytest.raises(SystemExit) as caught:
                parse(*arguments)
            assert caught.value.code == 2
            assert f"--{flag.name} is not supported: {flag.refused}" in capsys.readouterr().err
            continue
        options = parse(*arguments)
        found = getattr(options, flag.name)
        assert type(found) is type(flag.default)
        assert str(found).lower() == value
        said = without_effect(options)
        assert said == ([f"--{flag.name} has no effect: {flag.no_effect}"] * bool(flag.no_effect))


def test_defaults_are_silent() -> None:
    options = parse()
    assert without_effect(options) == []
    assert all(getattr(options, flag.name) == flag.default for flag in FLAGS)


def test_truths() -> None:
    for text, value in (
        ("", True),
        ("=true", True),
        ("=1", True),
        ("=False", False),
        ("=0", False),
    ):
        assert parse(f"--enable_batching{text}").enable_batching is value
    options = parse("--enable_batching", "--port=9")
    assert (options.enable_batching, options.port) == (True, 9)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--model_nam=x", "did you mean --model_name?"),
        ("--rest_port=1", "did you mean --rest_api_port?"),
        ("--rest-api-port=1", "did you mean --rest_api_port?"),
        ("--zzz", "unknown argument --zzz\n"),
        ("model", "unknown argument model"),
        ("--mode", "unknown argument --mode"),  # no abbreviations, as there
    ],
)
def test_unknown(argument: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(argument)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_the_documentation_names_every_flag() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text()
    table = text.partition("### TensorFlow Serving's command line")[2].partition("\n## ")[0]
    named = set(re.findall(r"`--([a-z_]+)`", table))
    assert named >= {flag.name for flag in FLAGS}


# -- batching parameters ------------------------------------------------------------------------


def settings(text: str) -> dict[str, Any]:
    return tf_batching.settings(text_format.Parse(text, wire.BatchingParameters()))


def test_batching_parameters(caplog: pytest.LogCaptureFixture) -> None:
    assert settings("") == {
        "batching": {"max_size": 1000, "max_delay_ms": 0.0},
        "queue": {"max_size": 10_000},
    }
    found = settings(
        "max_batch_size { value: 128 } batch_timeout_micros { value: 500 }"
        " max_enqueued_batches { value: 4 } num_batch_threads { value: 2 }"
    )
    assert found == {
        "batching": {"max_size": 128, "max_delay_ms": 0.5},
        "queue": {"max_size": 512},
        "instances": 2,
    }
    assert not caplog.records


@pytest.mark.parametrize(
    "text",
    [
        "thread_pool_name { value: 'x' }",
        "allowed_batch_sizes: [1, 2]",
        "pad_variable_length_inputs: true",
        "enable_large_batch_splitting { value: true }",
        "max_execution_batch_size { value: 3 }",
    ],
)
def test_what_has_no_effect_is_said(text: str, caplog: pytest.LogCaptureFixture) -> None:
    settings(text)
    assert f"'{text.partition(' ')[0].rstrip(':')}' has no effect" in caplog.text


numbers = st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 100_000)
RANGES = {
    "max_batch_size": range(1, 2**31),
    "batch_timeout_micros": range(10_000_001),
    "max_enqueued_batches": range(1, 2**31),
    "num_batch_threads": range(1, 2**31),
}


@given(st.fixed_dictionaries(dict.fromkeys(RANGES, numbers)))
def test_any_parameters_are_a_configuration_or_an_error(values: dict[str, int | None]) -> None:
    given_ones = {name: {"value": v} for name, v in values.items() if v is not None}
    parameters = wire.BatchingParameters(**given_ones)
    if any(v is not None and v not in RANGES[name] for name, v in values.items()):
        with pytest.raises(InvalidArgument):
            tf_batching.settings(parameters)
        return
    config = ModelConfig.model_validate(tf_batching.settings(parameters))
    assert config.batching
    assert config.batching.max_size == (values["max_batch_size"] or 1000)
    assert config.batching.max_delay_ms == (values["batch_timeout_micros"] or 0) / 1000
