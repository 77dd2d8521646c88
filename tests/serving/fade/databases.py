"""Databases for tests: a file of SQLite each, and a PostgreSQL server where there is one."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

KINDS = ("sqlite", "postgresql")


def _programs() -> Path | None:
    """Where ``initdb`` and ``pg_ctl`` are: on the path, or where Debian puts them."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), shutil.which("initdb")]
    return next((Path(path).parent for path in found if path), None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a server of our own on a Unix socket; it refuses to run as root."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="psycopg is not installed (crossfade[postgresql])")
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    as_user = ["runuser", "-u", user, "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="crossfade-pg-"))  # short: a socket's path is limited
    try:
        if as_user:
            shutil.chown(folder, user)
        data, log = folder / "data", folder / "log"

        def call(program: str, *arguments: str) -> None:
            command = [*as_user, str(programs / program), "-D", str(data), *arguments]
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, check=False, timeout=100
            )
            assert done.returncode == 0, done.stdout + done.stderr

        call("initdb", "-A", "trust", "-U", "crossfade", "--no-sync")
        call("pg_ctl", "start", "-w", "-l", str(log), "-o", f"-k {folder} -c listen_addresses=''")
        try:
            yield f"postgresql://crossfade@/postgres?host={folder}"
        finally:
            call("pg_ctl", "stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fades.db'}"
    server: str = request.getfixturevalue("postgresql")
    name = "t" + "".join(f"{byte:02x}" for byte in os.urandom(8))
    admin = server.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(admin, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")
