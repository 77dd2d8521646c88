from __future__ import annotations

from crossfade.serving.conversion import warmup


def test_files_are_found_however_deep_and_never_outside_of_the_folder() -> None:
    inputs = [[{"file": "a.jpg"}, [{"file": "b.png"}]], ["text", 3, b"c", {"file": "../d"}]]
    assert list(warmup.files([*inputs, {"file": 4}])) == ["a.jpg", "b.png"]
