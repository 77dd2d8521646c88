"""Every kind of export is told by its files, at any depth, and looked into."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import (
    CrossfadeError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.exports.entry import Wishes, plan
from crossfade.serving.exports.findings import look
from crossfade.serving.exports.kinds import Kind
from crossfade.serving.exports.recognise import recognise
from crossfade.serving.exports.warmup import FILE
from tests.runtimes import tflite_models
from tests.runtimes.tflite_models import FLOAT, UINT8, Graph, Op, Ops, T
from tests.serving.exports import samples

TEXT = "cat\ndog"
VERTEX = '{"inferenceType": "QUANTIZED_UINT8"}'
FIREBASE = '{"labelsFile": "names.txt"}'


def tflite(folder: Path, graph: Graph, name: str = "model.tflite", **beside: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(tflite_models.build(graph))
    for file, text in beside.items():
        (folder / file.replace("__", ".")).write_text(text)
    return folder


def scores(op: int, dtype: int = UINT8) -> Graph:
    """A picture of 2 x 1 pixels in, two scores out of ``op``; not to be run."""
    image = T("image", [1, 1, 2, 3], dtype, quantization=(1 / 127, 128) if dtype == UINT8 else None)
    return Graph([image, T("scores", [1, 2])], [Op(op, [0], [1])], [0], [1])


def detector(*states: str) -> Graph:
    into = [T(f"in/init_{name}", [1, 2], UINT8, quantization=(0.5, 7)) for name in states]
    out = [T(f"out/{name}", [1, 2], UINT8, quantization=(0.5, 7)) for name in states]
    tensors = [T("image", [1, 4, 4, 3], UINT8), T("boxes", [1, 2, 4]), *into, *out]
    ins = [0, *range(2, 2 + len(into))]
    outs = [1, *range(2 + len(into), len(tensors))]
    op = Op("TFLite_Detection_PostProcess", ins, outs)
    return Graph(tensors, [op], ins, outs)


@pytest.mark.parametrize(
    ("beside", "op", "maker", "fact"),
    [
        ({"tflite_metadata__json": VERTEX}, Ops.SOFTMAX, "Vertex AI", "sum to 1"),
        ({"manifest__json": FIREBASE, "names__txt": TEXT}, Ops.LOGISTIC, "Firebase", "independent"),
        ({}, Ops.SOFTMAX, "", "sum to 1"),
    ],
)  # fmt: skip
def test_vision_edge_tflite(
    tmp_path: Path, beside: dict[str, str], op: int, maker: str, fact: str
) -> None:
    tflite(
        tmp_path / "model-1" / "tflite" / "2026-01-01T00:00:00Z",
        scores(op),
        dict__txt=TEXT,
        **beside,
    )
    export = recognise(tmp_path)
    assert export.kind is Kind.VISION_EDGE_TFLITE
    assert maker in export.title
    found = look(export)
    assert found.labels == ["cat", "dog"]
    facts = {each.what: each for each in found.preprocessing}
    assert facts["width x height"].value == "2 x 1"
    assert facts["channels"].value == 3
    assert "-1.008..1.000" in facts["normalisation"].value
    assert "quantisation of 'image'" in facts["normalisation"].source
    assert facts["resize filter"].value is None
    assert fact in facts["labels a picture"].value
    assert ("inferenceType" in facts) == (maker == "Vertex AI")
    assert found.refusal == ""
    names = plan(export, found).files.keys()
    assert {"model.tflite", "dict.txt"} <= names


def test_nothing_is_said_of_what_is_not_in_the_file(tmp_path: Path) -> None:
    tflite(tmp_path, scores(Ops.SOFTMAX, tflite_models.FLOAT))
    export = recognise(tmp_path / "model.tflite")
    assert export.kind is Kind.TFLITE
    found = look(export)
    facts = {each.what: each for each in found.preprocessing}
    assert facts["normalisation"].value is None
    assert "not quantised" in facts["normalisation"].source
    assert found.labels == ()


def test_detection_tracking_and_the_edge_tpu(tmp_path: Path) -> None:
    label_map = "item { id: 2 name: 'dog' } item { id: 1 name: 'cat' }"
    boxes = recognise(tflite(tmp_path / "d", detector(), dict__txt=TEXT))
    assert boxes.kind is Kind.VISION_EDGE_DETECTION_TFLITE
    tracker = recognise(tflite(tmp_path / "t", detector("c"), "video.tflite", map__pbtxt=label_map))
    assert tracker.kind is Kind.VIDEO_TRACKER
    found = look(tracker)
    assert found.labels == ["cat", "dog"]
    assert found.sequence == {"states": [{"input": "in/init_c", "output": "out/c", "initial": 7}]}
    entry = plan(tracker, found)
    assert entry.texts == {"labels.txt": "cat\ndog\n"}
    assert ModelConfig.model_validate(entry.config).sequence is not None
    edge = recognise(
        tflite(
            tmp_path / "e",
            tflite_models.custom("edgetpu-custom-op"),
            "edgetpu_model.tflite",
            dict__txt=TEXT,
        )
    )
    assert edge.kind is Kind.EDGE_TPU
    entry = plan(edge, look(edge))
    assert entry.config == {"options": {"device": ":0"}}
    assert entry.files.keys() == {"dict.txt", "model_edgetpu.tflite"}
    with pytest.raises(InvalidArgument, match=r"there is no 'model\.tflite' for the CPU"):
        plan(edge, look(edge), Wishes(fallback="cpu"))
    (tmp_path / "e" / "model.tflite").write_bytes(tflite_models.build(scores(Ops.SOFTMAX)))
    both = recognise(tmp_path / "e")
    assert both == edge
    entry = plan(both, look(both), Wishes(fallback="cpu"))
    assert entry.config == {"options": {"device": ":0", "fallback": "cpu"}}
    assert entry.files.keys() == {"dict.txt", "model.tflite", "model_edgetpu.tflite"}


@pytest.mark.parametrize(
    ("op", "task"), [(Ops.SOFTMAX, "classification"), (Ops.LOGISTIC, "multi_label"), (Ops.ADD, "")]
)
def test_image_files_are_asked_for_and_never_guessed(tmp_path: Path, op: int, task: str) -> None:
    export = recognise(tflite(tmp_path / "a", scores(op), dict__txt=TEXT))
    assert plan(export, look(export)).config == {}
    config = plan(export, look(export), Wishes(images="area")).config
    assert config["preprocess"]["resize"] == {"filter": "area"}
    assert (config.get("task", ""), "postprocess" in config) == (task, bool(task))
    assert ModelConfig.model_validate(config).preprocess is not None
    export = recognise(tflite(tmp_path / "b", scores(op, FLOAT), dict__txt=TEXT))
    with pytest.raises(InvalidArgument, match="how a pixel becomes that is not in the file"):
        plan(export, look(export), Wishes(images="area"))


def test_custom_ops_of_tflite_are_named(tmp_path: Path) -> None:
    found = look(recognise(tflite(tmp_path, tflite_models.custom("FlexErf"))))
    assert [(op.op, op.package) for op in found.missing] == [("FlexErf", "tensorflow")]
    assert "FlexErf (tensorflow)" in found.refusal


@pytest.mark.parametrize("number", ["1", "0000001"])
@pytest.mark.parametrize(
    ("outputs", "image", "kind"),
    [
        (["labels", "scores", "key"], "image_bytes", Kind.CONTAINER_CLASSIFICATION),
        (["labels", "scores"], "image_bytes", Kind.CONTAINER_CLASSIFICATION),
        (["detection_boxes", "detection_scores"], "encoded_image", Kind.CONTAINER_DETECTION),
        (["something"], "image_bytes", Kind.SAVED_MODEL),
        (["labels", "scores"], "x", Kind.SAVED_MODEL),
    ],
)
def test_container_exports(
    tmp_path: Path, number: str, outputs: list[str], image: str, kind: Kind
) -> None:
    folder = tmp_path / number
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(samples.pictures(outputs, image))
    for place in (tmp_path, folder, folder / "saved_model.pb"):
        export = recognise(place)
        assert (export.kind, export.model) == (kind, folder)
    found = look(export)
    assert [fact.value for fact in found.preprocessing] == [
        "by the model: send JPEG or PNG bytes",
        "bilinear, by the model",
    ]
    assert plan(export, found).files.keys() == {"saved_model.pb"}


def test_tabular(tmp_path: Path) -> None:
    root = samples.tabular(tmp_path)
    for place in (tmp_path, root, root / "predict", root / "predict" / "001"):
        export = recognise(place)
        assert (export.kind, export.root) == (Kind.TABULAR, root)
    found = look(export)
    assert {op.op for op in found.missing} == set(samples.STRUCT2TENSOR_OPS)
    assert {op.pin for op in found.missing} == {"struct2tensor==0.48.1"}
    assert found.container == samples.CONTAINER
    assert found.environment["tensorflow"] == "2.8.0"
    assert [(c.name, c.type, c.nullable, c.example) for c in found.instance] == [
        ("Age", "string", True, "39"),
        ("Sex", "string", True, "male"),
    ]
    assert found.prediction == ["classes", "scores"]
    assert len(found.warmup) == 3
    assert found.signatures["serving_default"]["method"] == "classify"


def test_tabular_runs_in_an_environment_or_is_refused(tmp_path: Path) -> None:
    export = recognise(samples.tabular(tmp_path))
    entry = plan(export, look(export))
    assert entry.config["isolation"] == {"process": True, "environment": "automl-tabular"}
    assert entry.config["task"] == "classification"
    assert entry.config["table"] == {
        "instance": "instance.yaml",
        "prediction": "prediction_schema.yaml",
    }
    assert entry.texts == {"labels.txt": "0\n1\n"}
    assert len(entry.config["warmup"]) == 3
    assert {"saved_model.pb", "instance.yaml", "environment.json", FILE} <= entry.files.keys()
    again = tmp_path / "imported" / "1"
    for name, source in entry.files.items():
        (again / name).parent.mkdir(parents=True, exist_ok=True)
        (again / name).write_bytes(source.read_bytes())
    assert recognise(again).kind is Kind.TABULAR
    more = recognise(samples.tabular(tmp_path / "more", [*samples.STRUCT2TENSOR_OPS, "NobodysOp"]))
    refusal = look(more).refusal
    for part in ("NobodysOp (of an unknown package)", "tensorflow 2.8.0", samples.CONTAINER):
        assert part in refusal
    assert "RunLengthBefore" not in refusal  # the environment has it
    with pytest.raises(FailedPrecondition, match="NobodysOp"):
        plan(more, look(more))


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("environment.json", "[1]", "environment.json"),
        ("environment.json", "{" * 100_000, "environment.json"),
        ("instance.yaml", "a: [", "instance.yaml"),
        ("instance.yaml", "properties: 3", "instance.yaml"),
        ("prediction_schema.yaml", "!!python/object:os.system x", "prediction_schema.yaml"),
    ],
)
def test_damaged_metadata_becomes_a_note(
    tmp_path: Path, file: str, content: str, says: str
) -> None:
    root = samples.tabular(tmp_path)
    (root / file).write_text(content)
    assert any(says in note for note in look(recognise(root)).notes)


def test_legacy_tables(tmp_path: Path) -> None:
    folder = tmp_path / "model-export" / "tbl" / "tf_saved_model-flowers-20200818"
    folder.mkdir(parents=True)
    definition = samples.signature({"inputs": (7, [-1])}, {"scores": (1, [-1])})
    content = samples.saved_model(["DecodeProtoSparseV2"], {"serving_default": definition})
    (folder / "saved_model.pb").write_bytes(content)
    export = recognise(tmp_path)
    assert export.kind is Kind.TABLES_LEGACY
    config = plan(export, look(export)).config
    assert config == {"isolation": {"process": True, "environment": "automl-tabular"}}
    content = samples.saved_model(["NobodysOp"], {"serving_default": definition})
    (folder / "saved_model.pb").write_bytes(content)
    refusal = look(export).refusal
    assert "gcr.io/cloud-automl-tables-public/model_server" in refusal


def test_a_saved_model_with_foreign_ops_names_their_package(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(samples.saved_model(["TFText>Utf8Binarize"], {}))
    export = recognise(tmp_path)
    assert export.kind is Kind.SAVED_MODEL
    assert "TFText>Utf8Binarize (tensorflow-text)" in look(export).refusal


def test_what_is_not_hosted_says_what_to_do(tmp_path: Path) -> None:
    js = recognise(samples.tf_js(tmp_path / "tf-js"))
    assert js.kind is Kind.TF_JS
    apple = tmp_path / "core-ml"
    apple.mkdir()
    (apple / "model.mlmodel").write_bytes(b"\x08\x03\x12\x00")
    (apple / "dict.txt").write_text(TEXT)
    assert recognise(apple).kind is Kind.CORE_ML
    for export in (js, recognise(apple)):
        found = look(export)
        assert found.labels == ["cat", "dog"]
        assert "export_format_id='tflite'" in found.refusal
        with pytest.raises(FailedPrecondition):
            plan(export, found)
    package = tmp_path / "m.mlpackage"
    package.mkdir()
    assert recognise(package).kind is Kind.CORE_ML


@pytest.mark.parametrize(("formats", "says"), [([], "CLOUD_*"), ([{"id": "tflite"}], "tflite")])
def test_the_description_of_a_model_in_vertex_ai(
    tmp_path: Path, formats: list[dict[str, str]], says: str
) -> None:
    described = {"name": "projects/1/locations/us/models/2", "supportedExportFormats": formats}
    (tmp_path / "model.json").write_text(json.dumps(described))
    export = recognise(tmp_path)
    assert export.kind is Kind.VERTEX_MODEL
    assert says in look(export).refusal


def test_custom_trained(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x07")
    assert recognise(tmp_path).kind is Kind.ONNX
    program = tmp_path / "p" / "program.pt2"
    program.parent.mkdir()
    program.write_bytes(b"PK\x03\x04")
    export = recognise(program)
    assert export.kind is Kind.TORCH_EXPORT
    if not any(entry.opens("program.pt2") for entry in registry.entries().values()):
        assert "torch.onnx.export" in look(export).refusal


def test_several_and_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        recognise(tmp_path)
    (tmp_path / "notes.json").write_text("[]")
    (tmp_path / ".hidden.onnx").write_bytes(b"")
    with pytest.raises(NotFound):
        recognise(tmp_path)
    for name in ("a", "b"):
        tflite(tmp_path / name, scores(Ops.SOFTMAX))
    with pytest.raises(InvalidArgument, match=r"'a/model\.tflite', 'b/model\.tflite'"):
        recognise(tmp_path)
    for number in ("00000009", "00000010"):
        (tmp_path / "v" / number).mkdir(parents=True)
        (tmp_path / "v" / number / "saved_model.pb").write_bytes(samples.saved_model([], {}))
    assert recognise(tmp_path / "v").model.name == "00000010"


def test_links_that_go_round_end(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to(tmp_path)
    with pytest.raises(CrossfadeError):
        recognise(tmp_path)
