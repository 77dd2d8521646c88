"""Unpacks an archive that a stranger may have made: nothing leaves the folder, nothing explodes."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from crossfade.runtimes.core.errors import InvalidArgument, escape

SUFFIXES: Final = (".zip", ".tar", ".tar.gz", ".tgz")
_CHUNK_BYTES: Final = 1 << 20
# What tarfile may read to learn of the next member: it keeps long names and pax records in memory.
_HEADER_BYTES: Final = 1 << 20
# What a member may take in a zip's directory, which zipfile keeps in memory as a whole.
_ENTRY_BYTES: Final = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may become.

    Attributes:
        members: files and folders in it.
        unpacked_bytes: of all files together.
        ratio: unpacked bytes to a byte of the archive, beyond the first ``free_bytes``.
    """

    members: int = 20_000
    unpacked_bytes: int = 32 << 30
    ratio: int = 200
    free_bytes: int = 64 << 20

    def allowed(self, archive_bytes: int) -> int:
        """The most bytes that an archive of that size may become."""
        return min(self.unpacked_bytes, max(self.free_bytes, self.ratio * archive_bytes))


def is_archive(path: Path) -> bool:
    """Whether the name is an archive's; ``.pt2`` is a zip, too, and no archive."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path, limits: Limits = Limits()) -> None:
    """Unpacks regular files and folders into an empty folder; modes and times are not kept.

    Raises:
        InvalidArgument: it is damaged, holds something else (a link, a device), a name that
            leaves the folder or is there twice, or is more than ``limits`` allow.
    """
    left = limits.allowed(archive.stat().st_size)
    reader = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
    try:
        if reader is _zip_members and _directory_bytes(archive) > limits.members * _ENTRY_BYTES:
            raise InvalidArgument(f"the archive has more than {limits.members} members")
        with contextlib.closing(reader(archive)) as members:
            for count, (name, content) in enumerate(members, 1):
                if count > limits.members:
                    raise InvalidArgument(f"the archive has more than {limits.members} members")
                target = folder / inside(name)
                if content is None:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                left -= _write(content, target, left)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise InvalidArgument(f"the archive is damaged: {escape(str(error))}") from error
    except FileExistsError:
        raise InvalidArgument("the archive has a name twice, or a file where a folder is") from None
    except (NotImplementedError, RuntimeError, RecursionError, ValueError) as error:
        # A method that zipfile does not have, a password, headers within headers, a bad number.
        raise InvalidArgument(f"the archive cannot be read: {escape(str(error))}") from error
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile) or error.errno is None:
            raise InvalidArgument(f"the archive is damaged: {escape(str(error))}") from error
        raise InvalidArgument(f"the archive cannot be unpacked: {error.strerror}") from error


def inside(name: str) -> PurePosixPath:
    """The relative path that a member's name means.

    Raises:
        InvalidArgument: it leaves the folder, or no file should have that name.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise InvalidArgument(f"the archive's member '{escape(name)}' leaves the folder")
    if "\\" in name or not name.isprintable():  # control codes, lone surrogates, other directions
        raise InvalidArgument(f"the archive has a member with an odd name: '{escape(name)}'")
    return path


def _write(content: IO[bytes], target: Path, left: int) -> int:
    written = 0
    with target.open("xb") as file:
        while chunk := content.read(_CHUNK_BYTES):
            written += len(chunk)
            if written > left:
                raise InvalidArgument(
                    "the archive becomes too large when it is unpacked: more than is sensible for"
                    " its size; unpack it yourself if you trust it"
                )
            file.write(chunk)
    return written


Members = Generator[tuple[str, IO[bytes] | None], None, None]


def _zip_members(archive: Path) -> Members:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.filename.endswith("/"):
                yield info.orig_filename, None
            elif kind not in (0, stat.S_IFREG):
                raise _not_a_file(info.orig_filename)
            else:
                with opened.open(info) as content:
                    yield info.orig_filename, content


def _directory_bytes(archive: Path) -> int:
    """The size of a zip's directory, as its end says it and zipfile believes it."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - (1 << 17)))
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0:
        return 0
    large = end - 76  # the record of large archives, before its locator of 20 bytes
    if large >= 0 and tail[end - 20 : end - 16] == b"PK\6\7":
        return int.from_bytes(tail[large + 40 : large + 48], "little")
    return int.from_bytes(tail[end + 12 : end + 16], "little")


class _Metered:
    """A stream that may be read only so far; asking for more is what a bomb does."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._left = 0

    def allow(self, size_bytes: int) -> None:
        """Sets what may be read from here on."""
        self._left = size_bytes

    def read(self, size_bytes: int) -> bytes:
        """See ``IO.read``."""
        chunk: bytes = self._inner.read(size_bytes)
        self._left -= len(chunk)
        if self._left < 0:
            raise InvalidArgument("the archive has a header of more than a megabyte")
        return chunk


def _tar_members(archive: Path) -> Members:
    compressed = not archive.name.lower().endswith(".tar")
    with contextlib.ExitStack() as stack:
        raw: Any = stack.enter_context(archive.open("rb"))
        metered = _Metered(stack.enter_context(gzip.GzipFile(fileobj=raw)) if compressed else raw)
        metered.allow(_HEADER_BYTES)
        stream: Any = metered
        opened = stack.enter_context(tarfile.open(fileobj=stream, mode="r|"))
        while (member := opened.next()) is not None:
            vars(opened)["members"].clear()  # it keeps every header that it has seen
            if member.isdir():
                yield member.name, None
            elif not member.isreg() or member.issparse():
                raise _not_a_file(member.name)
            else:
                content = opened.extractfile(member)
                assert content is not None
                metered.allow(member.size + _HEADER_BYTES)
                with content:
                    yield member.name, content
            metered.allow(_HEADER_BYTES)


def _not_a_file(name: str) -> InvalidArgument:
    return InvalidArgument(
        f"the archive's member '{escape(name)}' is neither a file nor a folder (a link, a device)"
    )
