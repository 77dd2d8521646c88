from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossfade.ensemble.members import Known
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.fitting import cache
from crossfade.serving.fitting.cache import Cache
from crossfade.serving.fitting.predictions import Predictions
from crossfade.serving.lifecycle.ensembles import members_of
from crossfade.serving.lifecycle.manager import Manager
from crossfade.serving.repository.source import LocalSource
from tests.serving.lifecycle.folders import Repository
from tests.serving.lifecycle.test_ensembles import classifier, running, weighted

FOUND = Predictions(np.eye(3, dtype=np.uint8), np.array([1, 0, 1], bool), np.ones(3), "why")


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    kept = Cache(tmp_path / "new")
    assert kept.get("a" * 64, 3) is None
    kept.put("a" * 64, FOUND)
    found = kept.get("a" * 64, 3)
    assert found is not None
    assert found.scores.dtype == np.uint8
    assert np.array_equal(found.scores, FOUND.scores)
    assert np.array_equal(found.answered, FOUND.answered)
    assert found.failure == "why"
    assert kept.get("a" * 64, 4) is None
    assert kept.get("b" * 64, 3) is None
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive", b"\x93NUMPY\x01\x00"])
def test_a_broken_file_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{'a' * 40}.npz").write_bytes(content)
    assert Cache(tmp_path).get("a" * 64, 3) is None


def test_half_a_file_is_none(tmp_path: Path) -> None:
    Cache(tmp_path).put("a" * 64, FOUND)
    (place,) = tmp_path.iterdir()
    place.write_bytes(place.read_bytes()[:-40])
    assert Cache(tmp_path).get("a" * 64, 3) is None


def test_nowhere_to_keep_them(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for kept in (Cache(None), Cache(tmp_path / "file" / "below")):
        kept.put("a" * 64, FOUND)
        assert kept.get("a" * 64, 3) is None


def test_the_data_count_by_value() -> None:
    x = np.zeros((2, 3), np.float32)
    texts = np.array([b"ab", b"c"], object)
    marks = {
        cache.digest({"x": x}),
        cache.digest({"y": x}),
        cache.digest({"x": x.reshape(3, 2)}),
        cache.digest({"x": x.astype(np.int32)}),
        cache.digest({"x": x + 1}),
        cache.digest({"x": texts}),
        cache.digest({"x": np.array([b"a", b"bc"], object)}),
    }
    assert len(marks) == 7
    assert cache.digest({"x": x}) == cache.digest({"x": x.copy()})


def test_a_key_changes_with_files_configuration_data_and_settings(tmp_path: Path) -> None:
    models = Repository(tmp_path / "models")
    classifier(models, "a")
    classifier(models, "b")
    weighted(models, "inner", "a", "b")
    weighted(models, "outer", "inner", "b")
    source = LocalSource(models.root)

    def key(manager: Manager, place: int, data: str = "d", *settings: object) -> str | None:
        section = source.read("outer").config.ensemble
        assert section is not None
        member = members_of(section)[place]
        known = Known(member, manager.metadata(ModelRef(member.ref.name)))
        return cache.key(known, manager, [source], data, settings)

    with running(models.manager(startup=["*"])) as manager:
        seen = [key(manager, 0), key(manager, 1), key(manager, 1, "e"), key(manager, 1, "d", 4)]
        assert key(manager, 1) == seen[1]
        # A member of a member counts, too; what only touches a file does not.
        place = models.root / "a" / "1" / "fake.yaml"
        content = place.read_bytes()
        place.write_bytes(content)
        assert key(manager, 0) == seen[0]
        place.write_bytes(content + b"\n")
        seen.append(key(manager, 0))
        models.configure("b", max_batch_size=4)
        seen += [key(manager, 0), key(manager, 1)]
    assert None not in seen
    assert len(set(seen)) == 7
