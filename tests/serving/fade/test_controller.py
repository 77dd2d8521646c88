"""What references mean while members come and go, without a server around it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition, Unavailable
from crossfade.runtimes.core.model import InferResponse, ModelRef
from crossfade.serving.dataplane.door import DataPlane, Query
from crossfade.serving.fade.controller import FadeController
from crossfade.serving.fade.database import FadeDatabase
from crossfade.serving.lifecycle.manager import Manager
from crossfade.serving.repository import lineage
from crossfade.serving.repository.source import open_source
from crossfade.serving.tensors.raw import RawTensor
from tests import fading

PLAN = "steps: [{traffic_percent: shadow}, {traffic_percent: 100}]"
ANN = "ann"
DIGITS = Path(__file__).resolve().parents[3] / "examples" / "digits" / "models"


class Server:
    """The parts of a server that fades need."""

    def __init__(self, folder: Path) -> None:
        self.manager = Manager([open_source(str(folder / "models"))])
        self.plane = DataPlane(self.manager)
        database = FadeDatabase(f"sqlite:///{folder / 'fades.db'}")
        self.fades = FadeController(database, self.manager, self.plane.detour)
        self.fades.prepare()
        self.manager.start()
        self.fades.start()

    def asked(self, name: str = "flowers", **which: str) -> InferResponse:
        x = np.array([[1, 2, 3]], np.float32)
        query = Query(ModelRef(name, **which), [RawTensor("x", "FP32", (1, 3), x.tobytes())])
        (answer,) = self.plane.infer([query])
        if isinstance(answer, CrossfadeError):
            raise answer
        return answer

    def who(self, name: str = "flowers", **which: str) -> int:
        """The version that answers: 1 is the primary, 2 the candidate."""
        return self.asked(name, **which).model.version

    def close(self) -> None:
        self.fades.close()
        self.manager.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    fading.write_version(tmp_path / "models" / "flowers", 1)
    fading.write_version(tmp_path / "models" / "custom", 2, fading.CUSTOM_ORDER)
    started: list[Server] = []

    def start() -> Server:
        if started:
            started.pop().close()
        started.append(Server(tmp_path))
        return started[0]

    yield start
    started.pop().close()


def test_promotion_moves_the_name_and_the_label_and_rollback_moves_them_back(
    serve: Callable[[], Server],
) -> None:
    server = serve()
    server.fades.begin("flowers", "flowers", "custom", f"{PLAN}\nlabel: stable", ANN)
    for action, who in (("pause", 1), ("promote", 2), ("rollback", 1)):
        server.fades.act("flowers", action, "", ANN)
        assert server.who() == server.who(label="stable") == who
        assert server.who("custom") == 2
        assert not server.plane.is_quick("flowers") or action == "rollback"
    server = serve()
    assert server.who() == server.who(label="stable") == 1


def test_after_a_promotion_either_member_will_do(
    serve: Callable[[], Server], tmp_path: Path
) -> None:
    server = serve()
    server.fades.begin("flowers", "flowers", "custom", PLAN, ANN)
    server.fades.act("flowers", "promote", "", ANN)
    aside = tmp_path / "aside"
    shutil.move(tmp_path / "models" / "custom", aside)
    server = serve()
    assert server.who() == 1
    assert "custom" in server.fades.status("flowers")["missing"][0]
    shutil.move(aside, tmp_path / "models" / "custom")
    assert serve().who() == 2
    shutil.move(tmp_path / "models" / "flowers", aside)
    server = serve()
    assert server.who() == 2
    with pytest.raises(Unavailable):
        server.fades.act("flowers", "retire", "", ANN)


@pytest.mark.parametrize("unread", [False, True])
def test_a_form_that_only_the_primary_reads_keeps_it_while_clients_send_it(
    serve: Callable[[], Server], tmp_path: Path, unread: bool
) -> None:
    for name, scale in (("digits", ""), ("digits_custom", ", scale: 0.00392156862745098")):
        source = {"digits": "digits_automl"}.get(name, name)
        shutil.copytree(DIGITS / source, tmp_path / "models" / name)
        (tmp_path / "models" / name / "model.yaml").write_text(
            f"task: classification\npreprocess: {{name: image_bytes{scale}}}\npostprocess: {{}}\n"
        )
    server = serve()
    server.fades.begin("digits", "digits", "digits_custom", PLAN, ANN)
    with pytest.raises(FailedPrecondition, match=r"is running: .*; promote it first"):
        server.fades.act("digits", "retire", "", ANN)
    server.fades.act("digits", "promote", "", ANN)
    if unread:
        pixels = RawTensor("image", "UINT8", (1, 32, 32, 3), bytes(3072))
        (answer,) = server.plane.infer([Query(ModelRef("digits"), [pixels])])
        assert isinstance(answer, InferResponse)
        assert server.fades.status("digits")["answered"] == {"unfit": 1}
        said = r"'digits_custom' does not read .*'image' \(UINT8.* had to answer 1 such requests"
        with pytest.raises(FailedPrecondition, match=said):
            server.fades.act("digits", "retire", "", ANN)
    assert server.fades.act("digits", "retire", "", ANN, force=unread)["status"] == "RETIRED"


def test_a_live_fade_without_its_candidate_leaves_the_primary(
    serve: Callable[[], Server], tmp_path: Path
) -> None:
    server = serve()
    server.fades.begin("flowers", "flowers", "custom", "steps: [{traffic_percent: 100}]", ANN)
    assert server.who() == 2
    shutil.rmtree(tmp_path / "models" / "custom")
    server = serve()
    assert server.who() == 1
    with pytest.raises(Unavailable):
        server.fades.act("flowers", "promote", "", ANN)


def test_a_version_that_is_there_and_not_served(
    serve: Callable[[], Server], tmp_path: Path
) -> None:
    fading.write_version(tmp_path / "models" / "flowers", 2)
    server = serve()
    with pytest.raises(FailedPrecondition, match="version 1 of 'flowers' is there but not served"):
        server.fades.begin("flowers", "1", "2", PLAN, ANN)
    (tmp_path / "models" / "flowers" / "model.yaml").write_text("version_policy: all\n")
    server = serve()
    server.fades.begin("flowers", "1", "2", PLAN, ANN)
    assert server.who() == 1


def test_a_refused_start_leaves_nothing(serve: Callable[[], Server], tmp_path: Path) -> None:
    fading.write_version(tmp_path / "models" / "other", 1, ("rose", "tulip", "lily"))
    server = serve()
    with pytest.raises(FailedPrecondition, match="'daisy', 'lily'"):
        server.fades.begin("flowers", "flowers", "other", PLAN, ANN)
    assert server.fades.all() == []
    assert server.asked().parameters == {}


def test_a_plan_may_require_to_know_what_the_candidate_was_made_of(
    serve: Callable[[], Server], tmp_path: Path
) -> None:
    members = "members: [{model: custom}, {model: flowers}]"
    ensemble = f"ensemble: {{kind: weighted, scores: probabilities, {members}}}"
    (tmp_path / "models" / "both").mkdir(parents=True)
    (tmp_path / "models" / "both" / "model.yaml").write_text(ensemble)
    server = serve()
    plan = f"{{require_lineage: true, {PLAN}}}"
    with pytest.raises(FailedPrecondition, match=r"'custom' it is not known.*no lineage.json"):
        server.fades.begin("flowers", "flowers", "custom", plan, ANN)
    assert server.fades.all() == []
    version = tmp_path / "models" / "custom" / "2"
    files = {p.name: lineage.digest_file(p) for p in version.iterdir()}
    card = lineage.Card(
        task="image-classifier",
        created="2026-01-02T03:04:05+00:00",
        seed=7,
        data=lineage.Origin(name="flowers", sha256="a" * 64),
        config={},
        metrics={},
        environment={},
        files=files,
    )
    (version / lineage.FILE).write_text(card.text())
    with pytest.raises(FailedPrecondition, match="'flowers' it is not known"):
        server.fades.begin("flowers", "flowers", "both", plan, ANN)  # its other member
    first = tmp_path / "models" / "flowers" / "1"
    files = {p.name: lineage.digest_file(p) for p in first.iterdir()}
    (first / lineage.FILE).write_text(card.model_copy(update={"files": files}).text())
    server.fades.begin("known", "flowers", "both", plan, ANN)
    server.fades.begin("flowers", "flowers", "custom", plan, ANN)
    assert server.who() == 1
