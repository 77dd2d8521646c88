from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.detection import vertex_csv, vertex_jsonl, voc
from crossfade.training.detection.records import Box, DetectionSet

BOX = Box("cat", 0.1, 0.2, 0.5, 0.6)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 50)).save(path)


def csv(tmp_path: Path, text: str) -> DetectionSet:
    file = tmp_path / "import.csv"
    file.write_text(text)
    return vertex_csv.read(file)


def test_csv_takes_two_vertices_and_four_and_pictures_without_boxes(tmp_path: Path) -> None:
    data = csv(
        tmp_path,
        "training,gs://b/a.jpg,cat,0.1,0.2,,,0.5,0.6,,\n"
        "test,gs://b/c.jpg,cat,0.1,0.2,0.5,0.2,0.5,0.6,0.1,0.6\n"
        "gs://b/d.jpg\n",
    )
    assert [p.boxes for p in data.pictures] == [(BOX,), (BOX,), ()]
    assert [p.split for p in data.pictures] == ["training", "test", None]
    assert data.labels == ("cat",)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("training,gs://b/a.jpg,cat,0.1,0.2", "line 1: 3 columns"),
        ("training,gs://b/a.jpg,cat,0.1,x,,,0.5,0.6,,", "not a number"),
        ("training,gs://b/a.jpg,cat,0.1,0.2,0.5,0.6,,,,", "two opposite vertices"),
        ("training,gs://b/a.jpg,,0.1,0.2,,,0.5,0.6,,", "without a label"),
        ("training,gs://b/../a.jpg", "names no picture"),
        ("training,a.jpg\ntest,a.jpg", "line 2: 'a.jpg' is in two splits"),
        ("training,", "no picture"),
        ("", "names no picture"),
    ],
)
def test_csv_that_is_wrong_is_refused_by_its_line(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        csv(tmp_path, line)


def test_jsonl_is_read_and_finds_the_copy_of_a_bucket(tmp_path: Path) -> None:
    picture(tmp_path / "deep" / "a.jpg")
    line = {
        "imageGcsUri": "gs://bucket/far/deep/a.jpg",
        "boundingBoxAnnotations": [
            {"displayName": "cat", "xMin": 0.1, "yMin": 0.2, "xMax": 0.5, "yMax": 0.6}
        ],
        "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": "validation"},
    }
    file = tmp_path / "import.jsonl"
    file.write_text(json.dumps(line) + "\n\n")
    (found,) = vertex_jsonl.read(file).pictures
    assert found.path == tmp_path / "deep" / "a.jpg"
    assert found.boxes == (BOX,)
    assert found.split == "validation"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "wrong type"),
        ("{}", "'imageGcsUri' is missing"),
        ('{"imageGcsUri": "a.jpg", "boundingBoxAnnotations": [{"displayName": "x"}]}', "'xMin'"),
        (
            '{"imageGcsUri": "a.jpg", "dataItemResourceLabels":'
            ' {"aiplatform.googleapis.com/ml_use": "dev"}}',
            "ml_use",
        ),
        ('{"imageGcsUri": "a.jpg"}\n{"imageGcsUri": "a.jpg"}', "twice"),
    ],
)
def test_jsonl_that_is_wrong_is_refused_by_its_line(tmp_path: Path, line: str, why: str) -> None:
    file = tmp_path / "import.jsonl"
    file.write_text(line)
    with pytest.raises(InvalidArgument, match=why):
        vertex_jsonl.read(file)


def voc_set(folder: Path, xml: str, **splits: str) -> Path:
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "Annotations" / "a.xml").write_text(xml)
    for name, names in splits.items():
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text(names)
    picture(folder / "JPEGImages" / "a.jpg")
    return folder


XML = """<annotation><filename>a.jpg</filename><size><width>100</width><height>50</height></size>
<object><name>cat</name><bndbox><xmin>10</xmin><ymin>10</ymin><xmax>50</xmax><ymax>30</ymax>
</bndbox></object></annotation>"""


def test_voc_is_read(tmp_path: Path) -> None:
    (found,) = voc.read(voc_set(tmp_path / "v", XML, train="a\n")).pictures
    assert found.boxes == (BOX,)
    assert found.split == "training"


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        (XML.replace("<width>100", "<width>0"), "must be positive"),
        (XML.replace("<xmin>10</xmin>", ""), "bndbox/xmin"),
        (XML.replace("a.jpg", "../a.jpg"), "without folders"),
        ("<!DOCTYPE x [<!ENTITY y 'z'>]>" + XML, "entities"),
        (XML[:40], "a.xml"),
    ],
)
def test_voc_that_is_wrong_is_refused_by_its_file(tmp_path: Path, xml: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        voc.read(voc_set(tmp_path / "v", xml))


def test_voc_in_two_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="both in the training and the test split"):
        voc.read(voc_set(tmp_path / "v", XML, train="a\n", test="a\n"))


def test_the_real_set_has_what_it_should(shared: Path) -> None:
    data = voc.read(shared / "detection" / "BCCD")
    assert data.labels == ("Platelets", "RBC", "WBC")
    assert [len(data.of(s)) for s in ("training", "validation", "test")] == [205, 87, 72]
    assert sum(len(p.boxes) for p in data.pictures) == 4888
