import json
import shutil
import subprocess
import sys

import pytest

from crossfade.benchmarks import serving
from crossfade.benchmarks.measure import measure_server
from crossfade.benchmarks.models import write_model
from crossfade.benchmarks.peers.floor import Floor
from crossfade.benchmarks.peers.peer import PeerUnavailableError
from crossfade.benchmarks.peers.registry import PEERS
from crossfade.benchmarks.plan import Life, Plan
from crossfade.benchmarks.workspace import Workspace

needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("bench"))
    write_model(workspace, "addsub")
    return workspace


PLAN = Plan(["addsub"], [2], warmup_s=0.3, window_s=0.3, idle_s=0.05, attempts=1)


def test_the_harness_maps_none_of_the_libraries_that_a_server_maps():
    code = (
        "import sys, crossfade.benchmarks.serving; "
        "print([m for m in ('grpc', 'numpy', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_options_have_short_windows_when_quick():
    quick, full = serving.parse_options(["--quick"]), serving.parse_options([])
    assert quick.repetitions < full.repetitions
    assert quick.plan.window_s < full.plan.window_s
    assert full.servers == ("bare", "floor", "triton", "kserve", "mlserver", "crossfade")
    assert serving.parse_options(["--concurrency", "1,4"]).plan.concurrencies == (1, 4)


def test_options_refuse_an_unknown_server(capsys):
    with pytest.raises(SystemExit):
        serving.parse_options(["--servers", "floor,nobody"])
    assert "nobody" in capsys.readouterr().err


def test_repetitions_rotate_the_order_of_the_servers(monkeypatch, workspace):
    order = []

    def record(name, options, repetition):
        order.append((repetition, name))
        return Life([], [], [])

    monkeypatch.setattr(serving, "_measure_one", record)
    options = serving.parse_options(["--repetitions", "3", "--workspace", str(workspace.root)])
    serving.measure(options, ["a", "b", "c"])
    assert "".join(name for _, name in order) == "abcbcacab"


@needs_h2load
def test_the_floor_is_measured_and_its_answers_are_right(workspace):
    life = measure_server(Floor(), workspace, PLAN, repetition=0)
    assert life.failures == []
    (measurement,) = life.measurements
    assert measurement.rps > 0
    assert measurement.cpu_us > 0
    assert measurement.counted >= measurement.requests
    assert measurement.checked > 16  # some of them under load
    (start,) = life.starts
    assert start.ready_s > 0
    assert start.processes == 1
    assert start.pss_idle_mb > 10


@needs_h2load
def test_a_wrong_answer_is_a_failure_without_a_measurement(workspace, tmp_path):
    other = Workspace(tmp_path)
    shutil.copytree(workspace.root, other.root, dirs_exist_ok=True)
    model = other.model_file("addsub").read_bytes()
    other.model_file("addsub").write_bytes(model.replace(b"Sub", b"Mul"))
    life = measure_server(Floor(), other, PLAN, repetition=0)
    assert life.measurements == []
    assert "OUTPUT1 is off by" in life.failures[0]


@needs_h2load
def test_a_missing_peer_and_a_failed_one_are_in_the_result(
    workspace, monkeypatch, capsys, tmp_path
):
    class Missing(Floor):
        name = "triton"

        def prepare(self, workspace):
            raise PeerUnavailableError("not for this machine")

    class Broken(Floor):
        name = "kserve"

        def launch(self, workspace, models):
            return super().launch(workspace, ["nobody"])

    peers = {"triton": Missing(), "kserve": Broken()}
    monkeypatch.setattr(serving, "PEERS", {**PEERS, **peers})
    arguments = ["--quick", "--servers", "triton,kserve", "--models", "addsub"]
    arguments += ["--concurrency", "1", "--workspace", str(workspace.root)]
    arguments += ["--json", str(tmp_path / "result.json")]
    assert serving.main(arguments) == 1
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["missing"] == {"triton": "not for this machine"}
    assert not document["ok"]
    assert document["failures"][0].startswith("kserve: it ended before it was ready")
    assert document["addsub_c1_vs_triton"] is None
    assert json.loads((tmp_path / "result.json").read_text())["measurements"] == []
