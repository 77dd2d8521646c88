"""Fades in real servers, while real clients run: nothing fails, and nothing is forgotten."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from crossfade.serving.wire import crossfade as wire
from tests import fading
from tests.conftest import SERVE, ServerProcess
from tests.serving.fade.databases import postgresql, url

__all__ = ["postgresql", "url"]
PLAN = fading.PLAN % {"second_s": 0.5}
# Steps that do not end while a test looks at them.
LONG = """\
steps:
  - {traffic_percent: %s, mirror_percent: 100, min_time_s: 600}
  - {traffic_percent: 100}
guardrails: {latency: []%s}
"""


def ask(server: ServerProcess, method: str, path: str, body: Any = None) -> Any:
    """An HTTP route's answer, or the message of its error."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{server.http}{path}", data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        return f"{error.code} {json.loads(error.read())['error']}"


def cli(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "crossfade", "fade", *arguments, "--url", server.grpc],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def begin(server: ServerProcess, name: str, plan: str, **members: str) -> Any:
    body = {"from": name, "to": f"{name}_custom", "plan": plan, **members}
    started = ask(server, "POST", f"/v2/fades/{name}", body)
    assert isinstance(started, dict), started
    return started


def wait_for(server: ServerProcess, name: str, done: Callable[[Any], bool]) -> Any:
    until = time.monotonic() + 30
    while True:
        status = ask(server, "GET", f"/v2/fades/{name}")
        if isinstance(status, dict) and done(status):
            return status
        assert time.monotonic() < until, status
        time.sleep(0.05)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fade") / "models"
    for name in ("worse", "told", "plain", "refused", "named", "turned"):
        fading.write_pair(folder, name)
    fading.write_pair(folder, "failing", fails=True)
    fading.write_version(folder / "same", 1)
    fading.write_version(folder / "same_custom", 2)
    fading.write_version(folder / "other", 1, ("rose", "tulip", "lily"))
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    """One that looks for new versions, with a database of its own."""
    database = f"sqlite:///{repository.parent / 'fades.db'}"
    server = ServerProcess(
        *("--model-repository", str(repository), "--fade-database", database),
        *("--model-control-mode", "poll", "--poll-s", "0.2"),
    )
    yield server
    assert server.stop() == 0


# -- through the whole of it ----------------------------------------------------------------------


@pytest.mark.slow
def test_no_request_fails_through_kill_promote_and_rollback(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    fading.write_pair(tmp_path / "models", "flowers")
    ports = {name: str(fading.free_port()) for name in ("grpc", "http")}
    command = [
        *("--model-repository", tmp_path / "models", "--fade-database"),
        *(f"sqlite:///{tmp_path / 'fades.db'}", "--grpc-port", ports["grpc"]),
        *("--http-port", ports["http"]),
    ]
    server = serve(*command)
    plan = tmp_path / "fade.yaml"
    plan.write_text(fading.PLAN % {"second_s": 1.5})
    with fading.Client(server.grpc) as client:
        client.wait_more(20)
        done = cli(
            server, "start", "flowers", "--from", "flowers", "--to", "flowers_custom",
            "--plan", str(plan),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "RUNNING, step 1 of 3" in done.stdout
        before = wait_for(server, "flowers", lambda s: s["step"] == 2 and s["samples"] > 20)
        server.process.kill()  # kill -9
        server.process.wait(10)
        server = serve(*command)
        resumed = server.wait_for("fade", step=2, status="RUNNING")
        assert resumed["version"] == before["version"]
        client.wait_more(50)
        wait_for(server, "flowers", lambda s: s["status"] == "PROMOTED")
        client.wait_more(50)
        answered = ask(server, "GET", "/v2/fades/flowers")["answered"]
        assert answered["candidate"] > 0
        server.process.kill()  # its end state is served after a restart, too
        server.process.wait(10)
        server = serve(*command)
        server.wait_for("fade", status="PROMOTED")
        client.wait_more(50)
        assert cli(server, "rollback", "flowers", "--reason", "a test").returncode == 0
        client.wait_more(50)
    assert client.faults == []
    history = cli(server, "history", "flowers", "--json", "--plot", str(tmp_path / "fade.svg"))
    decisions = json.loads(history.stdout)["decisions"]
    assert [each["action"] for each in decisions] == [
        *("start", "advance", "advance", "advance", "roll_back")
    ]
    assert decisions[-1]["reason"] == "a test"
    assert all(each["findings"] and each["evidence"] for each in decisions[1:4])
    picture = (tmp_path / "fade.svg").read_text()
    assert picture.startswith("<svg")
    assert picture.count("<circle") >= len(decisions)


def test_a_candidate_that_gets_worse_is_rolled_back(
    server: ServerProcess, repository: Path
) -> None:
    plan = LONG % (50, ", quality: {min_agreement: 0.8}")
    with fading.Client(server.grpc, "worse") as client:
        begin(server, "worse", plan)
        wait_for(server, "worse", lambda s: s["samples"] > 50)
        assert client.faults == []
        client.may_be_wrong = True
        fading.write_version(repository / "worse_custom", 2, fading.CUSTOM_ORDER, wrong=True)
        ended = wait_for(server, "worse", lambda s: s["status"] == "ROLLED_BACK")
        client.wait_more(5)
        client.may_be_wrong = False
        client.wait_more(50)
    assert client.faults == []
    assert ended["last_decision"]["actor"] == "policy"
    assert ended["last_decision"]["reason"].startswith("agreement is between")


def test_a_candidate_that_fails_is_rolled_back_and_no_client_sees_it(
    server: ServerProcess,
) -> None:
    with fading.Client(server.grpc, "failing") as client:
        begin(server, "failing", LONG % (50, ""))
        ended = wait_for(server, "failing", lambda s: s["status"] == "ROLLED_BACK")
        client.wait_more(20)
    assert client.faults == []
    assert ended["last_decision"]["reason"].startswith("errors is between")


def test_an_operators_fade_with_a_label(server: ServerProcess) -> None:
    """Paused, resumed, promoted and retired; a label that clients call goes with it."""
    plan = LONG % ("shadow", "") + "label: stable\nkey: {parameter: user}\n"
    begin(server, "same", plan)
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}

    def answered_by(name: str) -> Any:
        status = ask(server, "GET", "/v2/fades/same")
        return status["answered"].get(name, 0)

    for step, (action, status) in enumerate(
        {"pause": "PAUSED", "resume": "RUNNING", "promote": "PROMOTED"}.items(), 1
    ):
        labelled = {**body, "parameters": {"version_label": "stable"}}
        for asked in (body, labelled):
            assert ask(server, "POST", "/v2/models/same/infer", asked)["model_name"] == "same"
        rows = ask(server, "POST", "/v1/models/same/labels/stable:predict", {"inputs": [[1, 2, 3]]})
        assert len(rows["outputs"][0]) == 3, rows
        assert answered_by("primary") == 3 * step
        assert ask(server, "POST", f"/v2/fades/same/actions/{action}")["status"] == status
    ask(server, "POST", "/v2/models/same/infer", labelled)
    assert answered_by("candidate") == 1
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as response:
        metrics = response.read().decode()
    for line in (
        'crossfade_fade_share_ratio{fade="same"} 1.0',
        'crossfade_fade_status{fade="same",status="PROMOTED"} 1.0',
        'crossfade_fade_decisions_total{fade="same"} 4.0',
        'crossfade_fade_requests_total{answered_by="primary",fade="same"} 9.0',
        'crossfade_fade_requests_total{answered_by="candidate",fade="same"} 1.0',
    ):
        assert line in metrics.splitlines(), line
    assert ask(server, "POST", "/v2/fades/same/actions/promote").startswith(
        "409 the fade is promoted"
    )
    assert ask(server, "POST", "/v2/fades/same/actions/retire")["status"] == "RETIRED"
    after = ask(server, "POST", "/v2/models/same/infer", labelled)
    assert (after["model_name"], after["model_version"]) == ("same", "2")
    assert ask(server, "POST", "/v2/fades/same/actions/rollback").startswith(
        "409 the fade is retired"
    )


def test_a_name_that_only_the_fade_has(server: ServerProcess) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    assert ask(server, "POST", "/v2/models/alias/infer", body).startswith("404")
    begin(server, "alias", LONG % ("shadow", ""), **{"from": "plain", "to": "plain_custom"})
    for action in ("promote", "rollback"):
        assert ask(server, "POST", "/v2/models/alias/infer", body)["model_name"] == "alias"
        (rows,) = ask(
            server, "POST", "/v1/models/alias:predict", {"instances": [[1, 2, 3]]}
        ).values()
        assert int(np.argmax(rows[0])) == fading.LABELS.index("daisy")
        assert ask(server, "GET", "/v2/models/alias")["inputs"][0]["name"] == "x"
        assert ask(server, "GET", "/v2/models/alias/ready")["ready"] is True
        assert isinstance(ask(server, "POST", f"/v2/fades/alias/actions/{action}"), dict)
    assert ask(server, "POST", "/v2/models/alias/infer", body)["model_name"] == "alias"


def test_a_form_that_would_be_missed_is_not_retired(server: ServerProcess) -> None:
    begin(server, "turned", LONG % ("shadow", ""))
    assert ask(server, "POST", "/v2/fades/turned/actions/retire").startswith(
        "409 the fade is running"
    )
    assert ask(server, "POST", "/v2/fades/turned/actions/promote")["status"] == "PROMOTED"
    said = ask(server, "POST", "/v2/fades/turned/actions/retire", {"force": "yes"})
    assert said.startswith("400 'force' must be true or false")
    said = ask(server, "POST", "/v2/fades/turned/actions/retire", {"force": True})
    assert said.startswith("409 'turned_custom' is not called as 'turned' is: ")


# -- feedback -------------------------------------------------------------------------------------


def test_ground_truth_early_late_and_twice(server: ServerProcess) -> None:
    begin(server, "told", LONG % ("shadow", ""))
    with fading.Client(server.grpc, "told", threads=1) as client:
        client.wait_more(60)
    wait_for(server, "told", lambda s: s["samples"] >= 0.9 * client.answered)
    time.sleep(1.2)  # until the answers are kept
    first, *rest = client.take_ids()
    with grpc.insecure_channel(server.grpc) as channel:
        record = channel.unary_unary(
            "/crossfade.Feedback/Record",
            wire.RecordRequest.SerializeToString,
            wire.RecordResponse.FromString,
        )
        request = wire.RecordRequest(model_name="told")
        for request_id, truth in (first, ("early", "rose"), ("never-asked", "tulip")):
            request.truths.add(request_id=request_id, truth=truth)
        outcomes = [one.outcome for one in record(request, timeout=10).truths]
        kinds = wire.RecordedTruth
        assert outcomes == [kinds.JOINED, kinds.WAITING, kinds.WAITING]
        again = {one.outcome for one in record(request, timeout=10).truths}
        assert again == {kinds.REPEATED}
    body = {"truths": [{"id": first[0], "truth": "none"}, *map(_truth, rest)]}
    told = ask(server, "POST", "/v2/models/told/feedback", body)["truths"]
    outcomes = [each["outcome"] for each in told]
    assert outcomes[0] == "conflict"
    joined = outcomes.count("joined")
    assert joined >= 0.9 * len(rest)
    wait_for(server, "told", lambda s: s["labels"] == joined + 1)
    with triton.InferenceServerClient(server.grpc) as client:  # its truth is there already
        x = np.array([[3, 1, 1]], np.float32)
        client.infer("told", [fading.tensor(x)], request_id="early")
    wait_for(server, "told", lambda s: s["labels"] == joined + 2)


def test_requests_without_an_id_get_one(server: ServerProcess) -> None:
    begin(server, "named", LONG % ("shadow", ""))
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    over_http = ask(server, "POST", "/v2/models/named/infer", body)
    assert len(over_http["id"]) == 32
    assert ask(server, "POST", "/v2/models/named/infer", {"id": "mine", **body})["id"] == "mine"
    assert "id" not in ask(server, "POST", "/v2/models/named/versions/1/infer", body)
    assert ask(server, "POST", "/v2/fades/named/actions/rollback")["status"] == "ROLLED_BACK"
    assert "id" not in ask(server, "POST", "/v2/models/named/infer", body)


def _truth(pair: tuple[str, str]) -> dict[str, str]:
    return {"id": pair[0], "truth": pair[1]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "400 'truths' must be a list"),
        ({"truths": []}, "400 the request holds no truth"),
        ({"truths": [{"id": "a"}]}, "400 'truth' must be a string"),
        ({"truths": [{"id": "", "truth": "a"}]}, "400 a request id has 1 to 256 characters"),
        ({"truths": [{"id": "a", "truth": "x" * 2000}]}, "400 a truth has 1 to 1024 characters"),
        ({"truths": [{"id": str(n), "truth": "a"} for n in range(5_001)]}, "400 one call takes"),
        (
            {"truths": [{"id": "a", "truth": "b"}, {"id": "a", "truth": "c"}]},
            "400 request id 'a' has two truths",
        ),
    ],
)
def test_feedback_that_is_none(server: ServerProcess, body: Any, said: str) -> None:
    if not isinstance(ask(server, "GET", "/v2/fades/plain"), dict):
        begin(server, "plain", LONG % ("shadow", ""))
    assert ask(server, "POST", "/v2/models/plain/feedback", body).startswith(said)


def test_feedback_without_a_fade(server: ServerProcess) -> None:
    said = ask(server, "POST", "/v2/models/other/feedback", {"truths": [_truth(("a", "b"))]})
    assert said.startswith("404 there is no fade of 'other'")


# -- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"to": "nobody"}, "404 'nobody' is neither a label"),
        ({"to": "7"}, "404 there is no 'refused:7'"),
        ({"to": "refused:1"}, "400 'refused' and 'refused:1' are the same version"),
        ({"to": "other"}, "409 'other' version 1 cannot answer what is asked of 'refused'"),
        ({"to": "../etc"}, "400 model name must not contain"),
        ({"plan": "steps: [{traffic_percent: 5}]"}, "400 the plan: "),
        ({"plan": "stepps: []"}, "400 the plan: "),
    ],
)
def test_a_fade_that_cannot_begin(server: ServerProcess, members: Any, said: str) -> None:
    body = {"from": "refused", "to": "refused_custom", **members}
    assert ask(server, "POST", "/v2/fades/refused", body).startswith(said)
    assert ask(server, "GET", "/v2/fades/refused").startswith("404 there is no fade of 'refused'")


def test_the_command_says_what_to_do(server: ServerProcess) -> None:
    done = cli(server, "promote", "nothing")
    assert done.returncode == 1
    assert "there is no fade of 'nothing': `crossfade fade start` begins one" in done.stderr


def test_a_server_without_its_database_does_not_start(repository: Path) -> None:
    done = subprocess.run(
        [*SERVE, "--model-repository", repository, "--fade-database", "sqlite:////nowhere/f.db"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "crossfade: the fade database cannot be used now: there is no folder /nowhere\n"
    )


# -- several servers ------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_servers_share_a_fade(
    serve: Callable[..., ServerProcess], url: str, tmp_path: Path
) -> None:
    fading.write_pair(tmp_path / "models", "flowers")
    one, two = (
        serve("--model-repository", tmp_path / "models", "--fade-database", url) for _ in range(2)
    )
    begin(one, "flowers", LONG % (50, ""))
    wait_for(two, "flowers", lambda s: not any("followed" in each for each in s["missing"]))
    with fading.Client(one.grpc) as first, fading.Client(two.grpc) as second:
        first.wait_more(50)
        second.wait_more(50)
        wait_for(one, "flowers", lambda s: s["samples"] > 0.8 * (first.answered + second.answered))
        assert ask(two, "POST", "/v2/fades/flowers/actions/promote")["status"] == "PROMOTED"
        wait_for(one, "flowers", lambda s: s["status"] == "PROMOTED" and not s["missing"])
        before = ask(one, "GET", "/v2/fades/flowers")["answered"].get("primary", 0)
        first.wait_more(20)
        after = ask(one, "GET", "/v2/fades/flowers")["answered"]
        assert after.get("primary", 0) - before <= 2
        assert ask(one, "POST", "/v2/fades/flowers/actions/rollback")["status"] == "ROLLED_BACK"
    assert first.faults == second.faults == []
    history = ask(two, "GET", "/v2/fades/flowers/history")["decisions"]
    assert [each["action"] for each in history] == ["start", "promote", "roll_back"]
