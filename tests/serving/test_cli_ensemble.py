"""``crossfade ensemble fit`` on members that answer with what they are sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from crossfade.ensemble.weights import CANDIDATES
from crossfade.serving.cli.main import main
from tests.serving.lifecycle.folders import Repository
from tests.serving.lifecycle.test_ensembles import ABC, classifier, weighted

BAD = {"input": "x", "value": 0.125}


class Place:
    """A repository, data, and the command."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._capsys = root, capsys
        self.models = Repository(root / "models")
        self.data, self.labels = root / "rows.npz", root / "rows.csv"

    def write(self, x: np.ndarray, labels: list[str], **more: np.ndarray) -> None:
        np.savez(self.data, x=x, **more)
        self.labels.write_text("\n".join(["label", *labels]) + "\n")

    def fit(self, name: str, *options: str) -> tuple[int, str, str]:
        code = main(
            [
                *("ensemble", "fit", name, "--repository", str(self.models.root)),
                *("--data", str(self.data), "--labels", str(self.labels)),
                *("--cache", str(self.root / "cache"), *options),
            ]
        )
        out, err = self._capsys.readouterr()
        return code, out, err

    def read(self) -> str:
        return self._capsys.readouterr().out

    def files(self, name: str) -> set[str]:
        return {path.name for path in (self.models.root / name).iterdir()}


def drawn(rows: int) -> tuple[np.ndarray, list[str]]:
    """Rows whose first class is mostly right, read as ``ABC``."""
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, rows)
    x = np.exp(3 * np.eye(3)[truth] + rng.normal(size=(rows, 3)))
    return np.float32(x / x.sum(axis=1, keepdims=True)), [ABC[n] for n in truth]


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    place = Place(tmp_path, capsys)
    classifier(place.models, "good")
    classifier(place.models, "other", ["c", "a", "b"])
    weighted(place.models, "e", "good", "other")
    place.write(*drawn(60))
    return place


def cascade(models: Repository, **keys: Any) -> None:
    stages = [{"model": "other"}, {"model": "good"}]
    section = {"kind": "cascade", "scores": "probabilities", "stages": stages, **keys}
    models.configure("c", ensemble=section)


def test_weights_are_written_once_and_predictions_kept(place: Place) -> None:
    code, out, err = place.fit("e", "--json", "--plot", str(place.root / "e.svg"))
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["rows"] == 60
    assert said["failed"] == {}
    assert said["report"]["labels"] == ABC
    written = json.loads(Path(said["written"]).read_text())
    assert written == said["report"]
    assert said["written"] == str(place.models.root / "e" / "weights.json")
    # The other's labels are wrong for these rows: it has no say.
    shares = next(c for c in written["candidates"] if c["name"] == written["chosen"])["shares"]
    assert shares == [1.0, 0.0]
    picture = (place.root / "e.svg").read_text()
    assert picture.startswith("<svg")
    assert "bars: 2 standard errors to either side" in picture
    assert "good" in picture
    code, out, _ = place.fit("e")
    assert code == 0
    assert "no member was asked" in out
    assert "chosen    best_single: " in out
    assert "note      60 rows are few: keep the best member unless you have hundreds" in out


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_a_candidate_that_is_asked_for(place: Place, candidate: str) -> None:
    code, out, _ = place.fit("e", "--candidate", candidate)
    assert code == 0
    assert f"chosen    {candidate}: as asked for" in out
    written = json.loads((place.models.root / "e" / "weights.json").read_text())
    assert written["chosen"] == candidate


def test_weights_that_follow_feedback_do_not_begin_at_stacking(place: Place) -> None:
    section = {"kind": "weighted", "scores": "probabilities", "adapt": {}}
    members = [{"model": "good"}, {"model": "other"}]
    place.models.configure("e", ensemble={**section, "members": members})
    code, _, err = place.fit("e", "--candidate", "stacking")
    assert code == 1
    assert "fit with --candidate convex, or leave adapt out of model.yaml" in err
    assert place.files("e") == {"model.yaml"}
    assert place.fit("e", "--candidate", "convex")[0] == 0


def test_a_dry_run_writes_nothing(place: Place) -> None:
    code, out, _ = place.fit("e", "--dry-run")
    assert code == 0
    assert "nothing was written" in out
    assert place.files("e") == {"model.yaml"}


def test_the_newest_version_gets_the_weights(place: Place) -> None:
    for version in (1, 2):
        place.models.write(f"e/{version}/note", "")
    assert place.fit("e")[0] == 0
    assert place.files("e/2") == {"note", "weights.json"}
    assert place.fit("e", "--version", "1")[0] == 0
    assert place.files("e/1") == {"note", "weights.json"}
    assert "no version 7" in place.fit("e", "--version", "7")[2]


def test_weights_that_cannot_be_read_are_replaced(place: Place) -> None:
    place.models.write("e/weights.json", "broken")
    assert place.fit("e")[0] == 0
    assert json.loads((place.models.root / "e" / "weights.json").read_text())["rows"] == 60


def test_rows_that_fail_are_left_out_and_told(place: Place) -> None:
    fail = {"code": "INVALID_ARGUMENT", "message": "no such picture", "when": BAD}
    classifier(place.models, "other", ["c", "a", "b"], behaviour="fail", fail=fail)
    x, labels = drawn(60)
    x[[4, 9]] = [0.125, 0.5, 0.375]
    x[20] = [0.5, 0.5, 0.5]  # no probabilities
    place.write(x, [*labels[:50], *[""] * 10])
    code, out, _ = place.fit("e")
    assert code == 0
    assert "2 members, 47 rows" in out
    assert "10 rows of the data have no label" in out
    assert "'good' fails on 1 rows, left out for all: scores declared as probabilities" in out
    assert "'other' fails on 3 rows, left out for all: no such picture" in out


def test_a_cascade(place: Place) -> None:
    cascade(place.models, gate="gate.json")
    place.write(*drawn(900))
    code, out, err = place.fit("c", "--max-harm", "0.01", "--cost", "1", "5")
    assert (code, err) == (0, "")
    assert f"written   {place.models.root / 'c' / 'gate.json'}" in out
    solved = json.loads((place.models.root / "c" / "gate.json").read_text())
    assert solved["full_cost"] == 5
    assert solved["harm_bound"] <= 0.01 + 1e-6
    assert set(solved["temperatures"]) == {"good", "other"}
    code, out, _ = place.fit("c", "--max-cost", "3", "--cost", "1", "5", "--json", "--dry-run")
    assert code == 0
    assert json.loads(out)["report"]["cost_bound"] <= 3
    assert json.loads(out)["written"] is None


def test_inspect_shows_the_values_in_force(place: Place) -> None:
    def inspect(name: str) -> tuple[int, str]:
        code = main(["inspect", str(place.models.root / name)])
        return code, place.read()

    stages = [{"model": "other", "threshold": 0.5}, {"model": "good", "temperature": 1.5}]
    cascade(place.models, stages=stages, measure="margin")
    code, out = inspect("c")
    assert code == 0
    for line in (
        "measure    margin",
        "member     other, threshold 0.5",
        "member     good, temperature 1.5",
        "not checked here: whether the members' tensors fit (serve says it)",
    ):
        assert f"  {line}\n" in out
    cascade(place.models, gate="gate.json")
    code, out = inspect("c")
    assert code == 1
    assert "cannot be loaded here: there is no 'gate.json'" in out
    place.write(*drawn(900))
    assert place.fit("c", "--max-harm", "0.01")[0] == 0
    code, out = inspect("c")
    assert code == 0
    assert "  measure    maximum; it, thresholds and temperatures from gate.json\n" in out
    assert place.fit("e")[0] == 0
    written = json.loads((place.models.root / "e" / "weights.json").read_text())
    fit = next(c["fit"] for c in written["candidates"] if c["name"] == written["chosen"])
    code, out = inspect("e")
    assert code == 0
    assert f"  rule       {fit['rule']}; it, weights and temperatures from weights.json\n" in out
    for member, weight in zip(written["members"], fit["weights"], strict=True):
        told = f"{member['name']}, weight {weight:.4g}, temperature {member['temperature']:.4g}"
        assert f"  member     {told}\n" in out


def test_thresholds_of_the_configuration_are_told(place: Place) -> None:
    stages = [{"model": "other", "threshold": 0.5}, {"model": "good"}]
    cascade(place.models, stages=stages, measure="margin")
    place.write(*drawn(900))
    code, out, _ = place.fit("c", "--max-harm", "0.01")
    assert code == 0
    assert "put gate: gate.json there" in out
    solved = json.loads((place.models.root / "c" / "gate.json").read_text())
    assert solved["measure"] == "margin"


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("nobody", [], "no model 'nobody'"),
        ("good", [], "'good' is no ensemble"),
        ("first", [], "'first' is of kind fallback, which has nothing to learn"),
        ("lost", [], "failed to load 'missing'"),
        ("broken", [], "failed to load 'torn', version 1: "),
        ("unlabelled", [], "has no labels for 'scores'"),
        ("e", ["--max-harm", "0.01"], "--max-harm is not for an ensemble of kind weighted"),
        ("c", ["--plot", "x.svg"], "--plot is not for an ensemble of kind cascade"),
        ("c", ["--candidate", "convex"], "--candidate is not for an ensemble of kind cascade"),
        ("c", ["--cost", "1"], "--cost needs a number for each of 2 stages"),
        ("c", [], "are needed for --max-harm 0.005: give more rows, or a larger"),
        ("e", ["--data", "nowhere"], "no data at 'nowhere'"),
        ("e", ["--labels", "nowhere"], "the labels 'nowhere' cannot be read"),
        ("e", ["--range", "2", "1"], "--range needs two numbers"),
        ("e", ["--repository", "memory://x"], "a repository behind a URL is only read"),
        ("e", ["--output", "boxes"], "combines scores, not 'boxes'"),
    ],
)
def test_what_cannot_be_fitted(place: Place, name: str, options: list[str], says: str) -> None:
    cascade(place.models, gate="gate.json")
    place.models.configure(
        "first", ensemble={"kind": "fallback", "members": [{"model": "good"}, {"model": "other"}]}
    )
    weighted(place.models, "lost", "good", "missing")
    weighted(place.models, "broken", "good", "torn")
    place.models.broken("torn", 1)
    classifier(place.models, "plain")
    place.models.remove("plain/labels.txt")
    weighted(place.models, "unlabelled", "good", "plain")
    code, out, err = place.fit(name, *options)
    assert (code, out) == (1, "")
    assert err.startswith("crossfade: ")
    assert err.count("\n") == 1
    assert says in err
    for folder in ("e", "c", "first"):
        assert place.files(folder) == {"model.yaml"}


@pytest.mark.parametrize(
    ("x", "labels", "says"),
    [
        (drawn(60)[0], ["rose"] * 60, r"labels that no member knows: 'rose'; the ensemble's are"),
        (drawn(60)[0], ["0"] * 60, "labels that no member knows: '0'"),
        (drawn(60)[0], drawn(60)[1][:9], "there are 9 labelled rows, but 10 are needed"),
        (drawn(60)[0], ["a", "b"] * 30, "no row has the label 'c'"),
        (drawn(60)[0][:, :2], drawn(60)[1], "the model needs [rows, 3]"),
        (drawn(60)[0] * 9, drawn(60)[1], "'good' fails: scores declared as probabilities"),
        (drawn(60)[0].astype("S"), drawn(60)[1], "the model takes FP32"),
    ],
)
def test_data_that_do_not_fit(place: Place, x: np.ndarray, labels: list[str], says: str) -> None:
    place.write(x, labels)
    code, _, err = place.fit("e")
    assert code == 1
    assert says in err
    assert place.files("e") == {"model.yaml"}


def test_a_member_that_answers_nothing(place: Place) -> None:
    fail = {"code": "UNAVAILABLE", "message": "out of order"}
    classifier(place.models, "other", ["c", "a", "b"], behaviour="fail", fail=fail)
    code, _, err = place.fit("e")
    assert code == 1
    assert "member 'other' answers no row: out of order" in err


@pytest.mark.parametrize("options", [["--max-harm", "1"], ["--cost", "-1"], ["--max-cost", "much"]])
def test_options_that_are_wrong(place: Place, options: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        place.fit("e", *options)
    assert ended.value.code == 2


def test_a_folder_of_images(place: Place) -> None:
    for name in ("good", "other"):
        place.models.write(
            f"{name}/1/fake.yaml",
            yaml.safe_dump(
                {
                    "inputs": [{"name": "image_bytes", "dtype": "BYTES", "shape": [-1, 1]}],
                    "outputs": [
                        {"name": "scores", "dtype": "FP32", "shape": [-1, 3], "value": 1 / 3}
                    ],
                }
            ),
        )
    place.data = place.root / "pictures"
    place.data.mkdir()
    lines = ["file,label"]
    for number in range(40):
        (place.data / f"{number:02}.png").write_bytes(b"a picture %d" % number)
        lines += [f"{number:02}.png,{ABC[number % 3]}"] * (number < 30)
    place.labels.write_text("\n".join(lines))
    code, out, err = place.fit("e", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert (said["rows"], said["unlabelled"]) == (30, 10)
    assert said["report"]["nested_log_loss"] == pytest.approx(np.log(3), abs=0.05)
    # Another picture under the same name is asked about anew.
    (place.data / "00.png").write_bytes(b"another")
    assert "no member was asked" not in place.fit("e")[1]
    assert "no member was asked" in place.fit("e")[1]


def test_an_automl_export_is_asked_as_it_is_served(place: Place, shared: Path) -> None:
    """Its pictures are resized, its scores bytes; the other model answers in another order."""
    edge = shared / "automl-vision-edge" / "flowers"
    export = place.models.root / "export" / "1"
    export.mkdir(parents=True)
    for name in ("model.tflite", "dict.txt"):
        (export / name).symlink_to(edge / name)
    labels = (edge / "dict.txt").read_text().split()
    place.models.configure("export", preprocess={"name": "image"}, task="classification")
    classifier(
        place.models,
        "blind",
        labels[::-1],
        inputs=[{"name": "pixels", "dtype": "FP32", "shape": [-1, 8, 8, 3]}],
        outputs=[{"name": "scores", "dtype": "FP32", "shape": [-1, len(labels)], "value": 0.0}],
    )
    place.models.configure("blind", preprocess={"name": "image"}, task="classification")
    members = [
        {"model": "blind", "scores": "logits"},
        {"model": "export", "scores": "probabilities"},
    ]
    place.models.configure("flowers", ensemble={"kind": "weighted", "members": members})
    place.data = place.root / "pictures"
    place.data.mkdir()
    lines = ["file,label"]
    for copy in range(4):
        for picture in (edge / "images").glob("*.jpg"):
            named = picture.name.partition("_")[0]
            label = next(one for one in labels if one.startswith(named))
            (place.data / f"{copy}_{picture.name}").write_bytes(picture.read_bytes())
            lines.append(f"{copy}_{picture.name},{label}")
    (place.data / "torn.jpg").write_bytes(b"no picture")
    lines.append(f"torn.jpg,{labels[0]}")
    place.labels.write_text("\n".join(lines))
    code, out, err = place.fit("flowers", "--json", "--allow-unseen")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["rows"] == 24
    assert {name: one["rows"] for name, one in said["failed"].items()} == {"blind": 1, "export": 1}
    report = said["report"]
    assert report["labels"] == labels[::-1]
    blind, export_ = report["members"]
    assert export_["log_loss"] < 0.5
    assert blind["log_loss"] > 1.3
    best = next(one for one in report["candidates"] if one["name"] == "best_single")
    assert best["shares"] == [0.0, 1.0]
