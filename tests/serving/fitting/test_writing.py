from __future__ import annotations

from pathlib import Path

import pytest

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.serving.fitting import writing
from crossfade.serving.repository.source import LocalSource
from tests.serving.lifecycle.folders import Repository
from tests.serving.lifecycle.test_ensembles import weighted


def test_a_file_is_put_whole_and_changes_the_fingerprint(tmp_path: Path) -> None:
    models = Repository(tmp_path / "models")
    weighted(models, "e", "a")
    source = LocalSource(models.root)
    prints = [source.read("e").versions[1].fingerprint]
    for text in ("one", "other"):
        place = writing.put(text, models.root / "e", "weights.json")
        assert place.read_text() == text + "\n"
        prints.append(source.read("e").versions[1].fingerprint)
    assert len(set(prints)) == 3
    assert sorted(path.name for path in (models.root / "e").iterdir()) == [
        "model.yaml",
        "weights.json",
    ]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CrossfadeError, match=r"'weights\.json' cannot be written: No such file"):
        writing.put("x", tmp_path / "nowhere", "weights.json")
    (tmp_path / "weights.json").mkdir()
    with pytest.raises(CrossfadeError, match="cannot be written"):
        writing.put("x", tmp_path, "weights.json")
    assert [path.name for path in tmp_path.iterdir()] == ["weights.json"]


def test_which_version(tmp_path: Path) -> None:
    models = Repository(tmp_path / "models")
    weighted(models, "e", "a")
    models.write("e/2/note", "")
    models.write("e/10/note", "")
    model = LocalSource(models.root).read("e")
    assert writing.version_of(model, None) == 10
    assert writing.version_of(model, 2) == 2
    with pytest.raises(CrossfadeError, match="no version 3"):
        writing.version_of(model, 3)
    models.write("e/model.yaml", "ensemble: {kind: mood}")
    with pytest.raises(CrossfadeError, match=r"'e': .*mood"):
        writing.version_of(LocalSource(models.root).read("e"), None)
