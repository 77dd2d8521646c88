"""Hostile archives: nothing leaves the folder, nothing but InvalidArgument comes out."""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.exports.unpack import Limits, inside, is_archive, unpack

Members = Sequence[tuple[str, bytes]]
HOSTILE = (
    "../evil",
    "a/../../evil",
    "/etc/evil",
    "//evil",
    "a\\..\\evil",
    "C:\\evil",
    "a\0b",
    "a\nb",
    "\u202egnp.exe",
    "a" * 300,
    "..",
    "/",
)


def zipped(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            with warnings.catch_warnings(action="ignore"):  # a name that is there already
                archive.writestr(info, content)
    return path


def tarred(path: Path, members: Members) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix != ".tar" else "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def packed(suffix: str, folder: Path, members: Members) -> Path:
    pack = zipped if suffix == ".zip" else tarred
    return pack(folder / f"archive{suffix}", members)


def below(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz"])
def test_files_and_folders_come_out_as_they_went_in(tmp_path: Path, suffix: str) -> None:
    members = [
        ("2022-10-04T11:50:12.690567Z/predict/001/saved_model.pb", b"graph"),
        ("a name with spaces/ümläut 猫.txt", b"labels"),
        ("./dict.txt", b""),
        ("empty/", b""),
    ]
    given_ = [m for m in members if suffix == ".zip" or not m[0].endswith("/")]
    archive = packed(suffix, tmp_path, given_)
    out = tmp_path / "out"
    out.mkdir()
    unpack(archive, out)
    expected = {name.removeprefix("./"): c for name, c in members if not name.endswith("/")}
    assert below(out) == expected


def test_which_names_are_archives() -> None:
    assert is_archive(Path("x.ZIP"))
    assert is_archive(Path("x.tar.gz"))
    assert not is_archive(Path("program.pt2"))  # a zip, and no archive
    assert not is_archive(Path("model.tflite"))


@pytest.mark.parametrize(
    ("suffix", "name"),
    # The header of a tar ends a name at a zero.
    [(s, n) for s in (".zip", ".tar") for n in HOSTILE if s == ".zip" or "\0" not in n],
)
def test_hostile_names(tmp_path: Path, suffix: str, name: str) -> None:
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    archive = packed(suffix, tmp_path, [("fine", b"1"), (name, b"2")])
    before = below(tmp_path)
    with pytest.raises(InvalidArgument) as caught:
        unpack(archive, out)
    assert "\n" not in caught.value.message
    assert str(tmp_path) not in caught.value.message
    assert below(tmp_path).keys() - before.keys() <= {"deep/out/fine"}


@given(
    st.sampled_from([".zip", ".tar"]),
    st.lists(
        st.tuples(
            st.one_of(
                st.text(max_size=20),
                st.lists(
                    st.sampled_from(["..", ".", "", "a", "b", "~", "C:", "a\\b", "\u2215"]),
                    max_size=6,
                ).map("/".join),
            ),
            st.binary(max_size=20),
        ),
        max_size=5,
    ),
)
@example(".zip", [("a", b""), ("a/b", b"")])
@example(".tar", [("a/../../b", b"x")])
def test_no_name_leaves_the_folder(suffix: str, members: Members) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        outer = Path(scratch) / "outer"
        out = outer / "out"
        out.mkdir(parents=True)
        try:
            archive = packed(suffix, Path(scratch), members)
        except (ValueError, UnicodeError):
            return  # the writer refuses such names
        with contextlib.suppress(InvalidArgument):
            unpack(archive, out)
        assert [p.name for p in outer.iterdir()] == ["out"]
        assert {p.name for p in Path(scratch).iterdir()} == {"outer", archive.name}
        assert not any(p.is_symlink() for p in out.rglob("*"))


@given(st.text(max_size=40))
def test_what_inside_lets_through_is_inside(name: str) -> None:
    try:
        path = inside(name)
    except InvalidArgument:
        return
    assert (Path("/root/of/it") / path).is_relative_to("/root/of/it")
    assert ".." not in path.parts


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
@given(data=st.data())
def test_damaged_archives(suffix: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        out.mkdir()
        archive = packed(suffix, Path(scratch), [("a", b"1" * 100), ("b/c", b"2" * 600)])
        content = bytearray(archive.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] = data.draw(st.integers(0, 255))
        else:
            del content[at:]
        archive.write_bytes(content)
        with contextlib.suppress(InvalidArgument):
            unpack(archive, out)


def a_link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname = tarfile.SYMTYPE, "/etc"


def a_hard_link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname = tarfile.LNKTYPE, "fine"


def a_device(info: tarfile.TarInfo) -> None:
    info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3


def a_pipe(info: tarfile.TarInfo) -> None:
    info.type = tarfile.FIFOTYPE


@pytest.mark.parametrize("change", [a_link, a_hard_link, a_device, a_pipe])
def test_what_is_no_file_in_a_tar(
    tmp_path: Path, change: Callable[[tarfile.TarInfo], None]
) -> None:
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("odd")
        change(info)
        archive.addfile(info)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InvalidArgument, match="neither a file nor a folder"):
        unpack(path, out)
    assert not list(out.iterdir())


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    info = zipfile.ZipInfo("odd")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InvalidArgument, match="neither a file nor a folder"):
        unpack(path, out)
    assert not list(out.iterdir())


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_bombs_by_ratio_and_by_size(tmp_path: Path, suffix: str) -> None:
    zeros = [("zeros", b"\0" * 3_000_000)]
    archive = packed(suffix, tmp_path, zeros)
    for name, limits in (
        ("ratio", Limits(ratio=10, free_bytes=1000)),
        ("size", Limits(unpacked_bytes=2_000_000)),
    ):
        out = tmp_path / name
        out.mkdir()
        with pytest.raises(InvalidArgument, match="too large"):
            unpack(archive, out, limits)
        assert sum(p.stat().st_size for p in out.rglob("*")) <= 2_000_000
    out = tmp_path / "fine"
    out.mkdir()
    unpack(archive, out)
    assert below(out) == dict(zeros)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_too_many_members_and_a_name_twice(tmp_path: Path, suffix: str) -> None:
    archive = packed(suffix, tmp_path, [(f"f{i}", b"") for i in range(30)])
    for folder in ("many", "twice", "under"):
        (tmp_path / folder).mkdir()
    with pytest.raises(InvalidArgument, match="more than 20 members"):
        unpack(archive, tmp_path / "many", Limits(members=20))
    archive.unlink()
    archive = packed(suffix, tmp_path, [("same", b"1"), ("./same", b"2")])
    with pytest.raises(InvalidArgument, match="twice"):
        unpack(archive, tmp_path / "twice")
    archive.unlink()
    archive = packed(suffix, tmp_path, [("same", b"1"), ("same/below", b"2")])
    with pytest.raises(InvalidArgument):
        unpack(archive, tmp_path / "under")


@pytest.mark.parametrize("large", [False, True])
def test_the_directory_of_a_zip_is_not_read_if_it_is_a_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:  # the other form of the end record, with the count in another place
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 10)
    path = zipped(tmp_path / "archive.zip", [(f"{i}", b"") for i in range(1000)])
    assert (b"PK\6\7" in path.read_bytes()) == large
    monkeypatch.setattr(zipfile, "ZipFile", lambda path: pytest.fail("it was read"))
    with pytest.raises(InvalidArgument, match="more than 20 members"):
        unpack(path, tmp_path, Limits(members=20))


def test_a_header_that_is_a_bomb(tmp_path: Path) -> None:
    """A pax record is kept in memory by whoever reads it, however large it is."""
    path = tmp_path / "archive.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"comment": "x" * 5_000_000}
        archive.addfile(info)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InvalidArgument, match="header"):
        unpack(path, out)


def test_a_zip_with_a_password(tmp_path: Path) -> None:
    path = zipped(tmp_path / "archive.zip", [("a", b"secret")])
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InvalidArgument, match="cannot be read"):
        unpack(path, out)
