"""Token files: made by the command, read by the server, faults said clearly."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from crossfade.runtimes.core.errors import InvalidArgument, PermissionDenied
from crossfade.serving.cli.main import main
from crossfade.serving.config import token_file
from crossfade.serving.transport.calls import Access

SHA = "a" * 64


class Bearer:
    peer = "127.0.0.1"

    def __init__(self, token: str) -> None:
        self.metadata = {"authorization": f"Bearer {token}"}


def test_the_command_makes_what_the_server_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokens.yaml"
    assert main(["token", "--file", str(path), "--name", "ci", "--role", "infer"]) == 0
    first = capsys.readouterr().out.strip()
    assert main(["token", "--file", str(path), "--name", "ops", "--role", "admin"]) == 0
    second = capsys.readouterr().out.strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first not in path.read_text()
    tokens = token_file.read(path)
    assert tokens.admit(Access.INFER, Bearer(first)) == "ci"
    assert tokens.admit(Access.ADMIN, Bearer(second)) == "ops"
    with pytest.raises(PermissionDenied):
        tokens.admit(Access.READ, Bearer(first))


def test_a_name_is_given_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens.yaml"
    command = ["token", "--file", str(path), "--name", "ci", "--role", "infer"]
    assert main(command) == 0
    before = path.read_text()
    assert main(command) == 1
    assert "has a token for 'ci'" in capsys.readouterr().err
    assert main([*command[:-3], "../x", "--role", "infer"]) == 1
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("tokens: []", "at least 1"),
        ("", "valid dictionary"),
        ("[", "is not YAML"),
        ("token: []", "did you mean 'tokens'"),
        (f"tokens: [{{name: a, sha256: {SHA}, role: [infer]}}]", "did you mean 'roles'"),
        (f"tokens: [{{name: a, sha256: {SHA}, roles: [root]}}]", "'infer', 'read' or 'admin'"),
        (f"tokens: [{{name: a, sha256: {SHA}, roles: []}}]", "at least 1"),
        ("tokens: [{name: a, sha256: secret, roles: [infer]}]", "pattern"),
        (
            f"tokens: [{{name: a, sha256: {SHA}, roles: [infer]}},"
            f" {{name: b, sha256: {SHA}, roles: [admin]}}]",
            "the same token twice",
        ),
    ],
)
def test_faults(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=fault):
        token_file.read(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read"):
        token_file.read(tmp_path / "none.yaml")
