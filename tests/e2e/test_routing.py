"""Splits, shadows and cascades in a real server, called by clients of three protocols."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from crossfade.ensemble.gate import CascadeSample, within_harm
from crossfade.ensemble.split import Split
from crossfade.serving.wire import tf_serving
from tests.conftest import ServerProcess
from tests.runtimes.onnx_models import FLOAT, model, node, value, weight

USERS = [f"user-{number}" for number in range(60)]
SHARES = (7000, 3000)
MEMBERS = """
behaviour: {behaviour}
inputs: [{{name: x, shape: [-1, 2]}}]
outputs:
  - {{name: y, from: x}}
  - {{name: who, dtype: INT64, value: {who}}}
{more}
"""


def chosen(ensemble: str, keys: list[str] = USERS) -> list[int]:
    """Who is to answer: 1 is red, 2 is blue."""
    split = Split(ensemble, SHARES)
    return [split.choose(key, None) + 1 for key in keys]  # type: ignore[arg-type]


class Digits:
    """A linear model of a picture of 4 x 4 points, and a network of one of 8 x 8, on digits."""

    def __init__(self) -> None:
        pixels, self.labels = load_digits(return_X_y=True)
        self.pixels = np.float32(pixels / 16)
        train, self.fit, self.test = slice(0, 700), slice(700, 1300), slice(1300, None)
        pool = np.zeros((64, 16), np.float32)
        for place in range(64):
            pool[place, place // 16 * 4 + place % 8 // 2] = 0.25
        x, y = self.pixels[train], self.labels[train]
        self.linear = LogisticRegression(max_iter=200).fit(x @ pool, y)
        self.network = MLPClassifier(
            (64,), learning_rate_init=0.01, tol=1e-3, n_iter_no_change=5, random_state=0
        ).fit(x, y)
        self.pool = pool

    def cheap(self) -> bytes:
        """Logits for 0 .. 9."""
        w = (self.pool @ self.linear.coef_.T).astype(np.float32)
        return model(
            [node("MatMul", "x w", "m"), node("Add", "m b", "scores")],
            [value("x", FLOAT, ["n", 64])],
            [value("scores", FLOAT, ["n", 10])],
            [weight("w", w), weight("b", self.linear.intercept_.astype(np.float32))],
        )

    def full(self) -> bytes:
        """Probabilities for 9 .. 0."""
        (w1, w2), (b1, b2) = self.network.coefs_, self.network.intercepts_
        arrays = {"w1": w1, "b1": b1, "w2": w2[:, ::-1], "b2": b2[::-1]}
        return model(
            [
                *(node("MatMul", "picture w1", "m"), node("Add", "m b1", "a")),
                *(node("Relu", "a", "r"), node("MatMul", "r w2", "n")),
                *(node("Add", "n b2", "o"), node("Softmax", "o", "probabilities", axis=-1)),
            ],
            [value("picture", FLOAT, ["n", 64])],
            [value("probabilities", FLOAT, ["n", 10])],
            [weight(name, np.ascontiguousarray(a, np.float32)) for name, a in arrays.items()],
        )

    def probabilities(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """What the two say, both for 0 .. 9."""
        x = self.pixels[rows]
        return self.linear.predict_proba(x @ self.pool), self.network.predict_proba(x)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("models")

    def write(path: str, content: str | bytes) -> None:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def member(name: str, behaviour: str, who: int, more: str = "") -> None:
        text = MEMBERS.format(behaviour=behaviour, who=who, more=more)
        write(f"{name}/1/fake.yaml", text)

    member("red", "echo", 1)
    member("blue", "echo", 2)
    member("slow", "sleep", 1, "delay_ms: 400")
    member("broken", "fail", 1)
    split = "ensemble:\n  kind: split\n  members:\n    - {model: red, basis_points: 7000}\n"
    split += "    - {model: blue, basis_points: 3000}\n"
    write("by_header/model.yaml", split + "  key: {header: X-User}\n")
    write("by_parameter/model.yaml", split + "  key: {parameter: user}\n")
    write("by_input/model.yaml", split + "  key: {input: x}\n")
    write(
        "nested/model.yaml",
        "ensemble:\n  kind: fallback\n  members: [{model: broken}, {model: by_header}]\n",
    )
    shadow = "ensemble:\n  kind: shadow\n  primary: {model: red}\n"
    write("shadow_of_blue/model.yaml", shadow + "  mirrors: [{model: blue}]\n")
    write("shadow_of_broken/model.yaml", shadow + "  mirrors: [{model: broken}]\n")
    write(
        "shadow_of_slow/model.yaml",
        shadow + "  mirrors: [{model: slow}]\n  queue: {max_size: 2}\n",
    )
    write("shadow_of_nobody/model.yaml", shadow + "  mirrors: [{model: nobody}]\n")
    write("cheap/1/model.onnx", digits.cheap())
    write("cheap/labels.txt", "\n".join(map(str, range(10))))
    write("full/1/model.onnx", digits.full())
    write("full/labels.txt", "\n".join(map(str, range(9, -1, -1))))
    stages = [np.float32(p) for p in digits.probabilities(digits.fit)]
    report = within_harm(CascadeSample.of(stages, digits.labels[digits.fit], (1, 10)), 0.02)
    write("cascade/gate.json", report.to_json())
    write(
        "cascade/model.yaml",
        """
ensemble:
  kind: cascade
  stages:
    - {model: cheap, scores: logits}
    - {model: full, inputs: {picture: x}, outputs: {probabilities: scores}, scores: probabilities}
  gate: gate.json
  stage_output: stage
""",
    )
    server = ServerProcess("--model-repository", str(root))
    server.gate = report  # type: ignore[attr-defined]
    yield server
    server.stop()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


def ones(module: Any = triton, first: float = 1.0, rows: int = 1) -> list[Any]:
    tensor = module.InferInput("x", [rows, 2], "FP32")
    tensor.set_data_from_numpy(np.float32([[first, 1.0]] * rows))
    return [tensor]


def who(answer: Any) -> int:
    return int(answer.as_numpy("who")[0])


def metrics(server: ServerProcess, name: str, **labels: str) -> float:
    """The sum of the samples of this name with these labels."""
    text = urllib.request.urlopen(f"http://{server.metrics}/metrics").read().decode()
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
    wanted = {f'{key}="{value}"' for key, value in labels.items()}
    return sum(float(number) for given, number in found if wanted <= set(given.split(",")))


def wait_until(server: ServerProcess, name: str, least: float, **labels: str) -> None:
    until_s = time.monotonic() + 20
    while metrics(server, name, **labels) < least:
        assert time.monotonic() < until_s, f"{name} {labels} stays below {least}"
        time.sleep(0.05)


def test_a_header_keeps_a_user_at_one_member(
    server: ServerProcess, client: triton.InferenceServerClient
) -> None:
    expected = chosen("by_header")
    over_grpc = [client.infer("by_header", ones(), headers={"x-user": user}) for user in USERS]
    with triton_http.InferenceServerClient(server.http) as http:
        over_http = [
            http.infer("by_header", ones(triton_http), headers={"X-User": user}) for user in USERS
        ]

    assert [who(answer) for answer in over_grpc] == expected
    assert [who(answer) for answer in over_http] == expected
    said = over_grpc[0].get_response().parameters["ensemble_member"].string_param
    assert said == over_http[0].get_response()["parameters"]["ensemble_member"]
    assert said == {1: "red", 2: "blue"}[expected[0]]


def test_the_key_reaches_it_through_tensorflow_serving_too(server: ServerProcess) -> None:
    request = tf_serving.PredictRequest()
    request.model_spec.name = "by_header"
    request.inputs["x"].dtype = 1
    for size in (1, 2):
        request.inputs["x"].tensor_shape.dim.add(size=size)
    request.inputs["x"].tensor_content = np.float32([1, 1]).tobytes()
    body = json.dumps({"instances": [{"x": [1, 1]}]}).encode()
    found: list[tuple[int, int]] = []
    with grpc.insecure_channel(server.grpc) as channel:
        predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            tf_serving.PredictRequest.SerializeToString,
            tf_serving.PredictResponse.FromString,
        )
        for user in USERS:
            one = predict(request, metadata=[("x-user", user)], timeout=10)
            rest = urllib.request.Request(
                f"http://{server.http}/v1/models/by_header:predict",
                body,
                {"x-user": user, "Content-Type": "application/json"},
            )
            (row,) = json.load(urllib.request.urlopen(rest))["predictions"]
            found.append((one.outputs["who"].int64_val[0] or _first(one), row["who"]))

    assert found == [(member, member) for member in chosen("by_header")]


def _first(response: Any) -> int:
    return int(np.frombuffer(response.outputs["who"].tensor_content, np.int64)[0])


def test_a_parameter_and_an_input_are_keys_too(
    server: ServerProcess, client: triton.InferenceServerClient
) -> None:
    by_parameter = [
        client.infer("by_parameter", ones(), parameters={"user": user}) for user in USERS
    ]
    with triton_http.InferenceServerClient(server.http) as http:
        over_http = [
            http.infer("by_parameter", ones(triton_http), parameters={"user": user})
            for user in USERS
        ]
    by_input = [client.infer("by_input", ones(first=float(n))) for n in range(60)]

    assert [who(answer) for answer in by_parameter] == chosen("by_parameter")
    assert [who(answer) for answer in over_http] == chosen("by_parameter")
    assert [who(answer) for answer in by_input] == chosen(
        "by_input", [str(float(n)) for n in range(60)]
    )


def test_requests_without_a_key_are_drawn(client: triton.InferenceServerClient) -> None:
    counts = Counter(who(client.infer("by_header", ones())) for _ in range(150))

    assert set(counts) == {1, 2}
    assert counts[1] > counts[2]


def test_a_header_reaches_a_split_inside_another_ensemble(
    client: triton.InferenceServerClient,
) -> None:
    found = [client.infer("nested", ones(), headers={"x-user": user}) for user in USERS]

    assert [who(answer) for answer in found] == chosen("by_header")


def test_shares_are_checked_in_the_metrics(
    server: ServerProcess, client: triton.InferenceServerClient
) -> None:
    before = metrics(server, "crossfade_split_keys", model="by_parameter")
    for user in range(200):
        client.infer("by_parameter", ones(), parameters={"user": f"another-{user}"})

    labels = {"model": "by_parameter"}
    assert metrics(server, "crossfade_split_keys", **labels) == before + 200
    assert metrics(server, "crossfade_split_sample_ratio_p_value", **labels) > 1e-6
    assert metrics(server, "crossfade_split_share", member="blue", **labels) == 0.3
    assert metrics(server, "crossfade_split_requests_total", **labels) >= 200


def test_a_mirror_is_compared(server: ServerProcess, client: triton.InferenceServerClient) -> None:
    answers = [client.infer("shadow_of_blue", ones()) for _ in range(20)]

    assert all(who(answer) == 1 for answer in answers)
    labels = {"model": "shadow_of_blue"}
    # The two differ in who they say that they are.
    wait_until(server, "crossfade_shadow_pairs_total", 20, result="differed", **labels)
    assert metrics(server, "crossfade_shadow_latency_ratio_count", member="blue", **labels) == 20
    bucket = "crossfade_shadow_score_difference_bucket"
    assert metrics(server, bucket, le="0", member="blue", **labels) == 20  # y is the same
    assert metrics(server, "crossfade_split_requests_total", **labels) == 0  # it splits nothing


@pytest.mark.parametrize("mirror", ["broken", "nobody"])
def test_a_mirror_that_fails_does_no_harm(
    server: ServerProcess, client: triton.InferenceServerClient, mirror: str
) -> None:
    ensemble = f"shadow_of_{mirror}"
    answers = [client.infer(ensemble, ones()) for _ in range(20)]

    assert all(who(answer) == 1 for answer in answers)
    labels = {"model": ensemble, "member": mirror}
    wait_until(server, "crossfade_shadow_pairs_total", 20, result="mirror_failed", **labels)


def test_a_slow_mirror_is_not_waited_for(
    server: ServerProcess, client: triton.InferenceServerClient
) -> None:
    answers = [client.infer("shadow_of_slow", ones()) for _ in range(30)]

    assert all(who(answer) == 1 for answer in answers)
    # All copies together would take 12 s; two of them wait, the others are dropped and counted.
    labels = {"model": "shadow_of_slow", "member": "slow"}
    dropped = metrics(server, "crossfade_shadow_dropped_total", **labels)
    assert dropped > 0
    wait_until(server, "crossfade_shadow_pairs_total", 30 - dropped, **labels)


def ask(client: triton.InferenceServerClient, rows: np.ndarray) -> Any:
    tensor = triton.InferInput("x", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    return client.infer("cascade", [tensor])


def test_a_cascade_answers_each_row_by_the_first_stage_that_is_sure(
    server: ServerProcess, client: triton.InferenceServerClient, digits: Digits
) -> None:
    gate = server.gate  # type: ignore[attr-defined]
    labels = digits.labels[digits.test]
    answers = [ask(client, digits.pixels[digits.test][at : at + 100]) for at in range(0, 400, 100)]
    found = np.concatenate([answer.as_numpy("scores") for answer in answers])
    stage = np.concatenate([answer.as_numpy("stage") for answer in answers])
    cheap, full = (p[:400] for p in digits.probabilities(digits.test))
    goes_on = cheap.max(axis=1) < gate.threshold

    assert (stage == goes_on).mean() > 0.99  # rounding at the threshold
    assert 0.05 < goes_on.mean() < 0.95
    expected = np.where(stage[:, None] == 1, full, cheap)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    right = (found.argmax(axis=1) == labels[:400]).mean()
    assert right > (full.argmax(axis=1) == labels[:400]).mean() - 0.03
    assert right > (cheap.argmax(axis=1) == labels[:400]).mean()
    said = answers[0].get_response().parameters["ensemble_member"].string_param
    assert said == "cheap,full"

    rows = "crossfade_cascade_rows_total"
    deferred = metrics(server, rows, model="cascade", stage="cheap", result="deferred")
    answered = metrics(server, rows, model="cascade", stage="full", result="answered")
    assert deferred == answered == stage.sum()
    low, high = (
        metrics(server, "crossfade_cascade_expected_deferral_rate", model="cascade", bound=bound)
        for bound in ("low", "high")
    )
    assert low < gate.reach[1] < high
    assert metrics(server, "crossfade_cascade_deferral_alarms_total", model="cascade") == 0


def test_a_drift_of_the_deferral_rate_raises_an_alarm(
    server: ServerProcess, client: triton.InferenceServerClient, digits: Digits
) -> None:
    ask(client, digits.pixels[:400] * np.float32(0.3))  # pictures in the dark

    alarms = "crossfade_cascade_deferral_alarms_total"
    assert metrics(server, alarms, model="cascade", stage="cheap", side="above") >= 1
    server.wait_for(
        "a stage of a cascade passes on another share of its rows than it was solved for",
        model="cascade",
        stage="cheap",
        side="above",
    )
