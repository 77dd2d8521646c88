"""The tables that fades are kept in, and how a database gets them. Needs the extra [fade]."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import exc

from crossfade.runtimes.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    MissingExtra,
    NotFound,
    Unavailable,
)
from crossfade.serving.fade.records import MAX_ANSWER, MAX_REQUEST_ID

SCHEMA_VERSION: Final = 1
MAX_NAME: Final = 128

METADATA: Final = sa.MetaData()
_FADE: Final = "crossfade_fades.id"

SCHEMA = sa.Table("crossfade_schema", METADATA, sa.Column("version", sa.Integer, nullable=False))
FADES = sa.Table(
    "crossfade_fades",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(MAX_NAME), nullable=False),
    sa.Column("primary_model", sa.String(MAX_NAME), nullable=False),
    sa.Column("candidate_model", sa.String(MAX_NAME), nullable=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("step_started_s", sa.Double, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),  # rises with each decision
)
_LIVE: Final = FADES.c.status.in_(["RUNNING", "PAUSED"])
sa.Index(
    "crossfade_one_live_fade", FADES.c.name, unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE
)
DECISIONS = sa.Table(
    "crossfade_decisions",
    METADATA,
    sa.Column("fade_id", sa.ForeignKey(_FADE), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("at_s", sa.Double, nullable=False),
    sa.Column("actor", sa.String(MAX_NAME), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("findings", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
)
EVIDENCE = sa.Table(
    "crossfade_evidence",
    METADATA,
    sa.Column("fade_id", sa.ForeignKey(_FADE), primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("replica", sa.String(MAX_NAME), primary_key=True),
    sa.Column("evidence", sa.Text, nullable=False),
)
# What labels said of each step's predictions: one column for each way a comparison can end.
LABEL_COUNTS: Final = (
    *("pair_worse", "pair_same", "pair_better"),
    *("alone_worse", "alone_same", "alone_better"),
)
LABELS = sa.Table(
    "crossfade_labels",
    METADATA,
    sa.Column("fade_id", sa.ForeignKey(_FADE), primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    *(sa.Column(name, sa.BigInteger, nullable=False, default=0) for name in LABEL_COUNTS),
)
FEEDBACK = sa.Table(
    "crossfade_feedback",
    METADATA,
    sa.Column("name", sa.String(MAX_NAME), primary_key=True),
    sa.Column("request_id", sa.String(MAX_REQUEST_ID), primary_key=True),
    sa.Column("fade_id", sa.Integer),  # null while only the truth is known
    sa.Column("step", sa.Integer),
    sa.Column("primary_answer", sa.String(MAX_ANSWER)),
    sa.Column("candidate_answer", sa.String(MAX_ANSWER)),
    sa.Column("truth", sa.String(MAX_ANSWER)),
    sa.Column("seen_s", sa.Double, nullable=False, index=True),
)

# A decision is history: nobody rewrites it, not by mistake either.
_APPEND_ONLY: Final = {
    "sqlite": [
        f"CREATE TRIGGER crossfade_no_{verb} BEFORE {verb} ON crossfade_decisions "
        "BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE FUNCTION crossfade_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RAISE EXCEPTION ''decisions are append-only''; END'",
        "CREATE TRIGGER crossfade_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
        "ON crossfade_decisions EXECUTE FUNCTION crossfade_refuse()",
    ],
}
_LIKE: Final = (
    "the fade database's URL must be like sqlite:///fades.db or postgresql://user@host/db"
)
_SETUP_LOCK: Final = 0x63726F73  # any number that others do not use


def connect(url: str, *, create: bool = True) -> sa.Engine:
    """Opens a database and brings its tables to this version; safe from many processes at once.

    Args:
        url: ``sqlite:///fades.db`` (a local disk, not a network one) or
            ``postgresql://user@host/database``.
        create: makes it, and its tables, where there are none.

    Raises:
        InvalidArgument: the URL cannot be used.
        MissingExtra: the database's driver is not installed.
        NotFound: there is none, and it is not to be made.
        FailedPrecondition: a newer version wrote the database, or it is none.
        Unavailable: it cannot be reached, with the reason, which is for whoever gave the URL.
    """
    engine = _engine(url)
    _check_file(engine.url, create)
    try:
        return _set_up(engine, create)
    except Unavailable as error:
        engine.dispose()
        reason = str(getattr(error.__cause__, "orig", "")).partition("\n")[0].strip()
        raise Unavailable(f"{error.message}: {reason}" if reason else error.message) from error


def _check_file(url: sa.URL, create: bool) -> None:
    """Says in words what SQLite would not, and keeps it from making a file."""
    name = url.database or ""
    if url.drivername != "sqlite" or name in {"", ":memory:"} or name.startswith("file:"):
        return
    if not create and not Path(name).exists():
        raise NotFound(f"there is no database at {name}")
    if not Path(name).parent.is_dir():
        raise Unavailable(
            f"the fade database cannot be used now: there is no folder {Path(name).parent}"
        )


def _set_up(engine: sa.Engine, create: bool) -> sa.Engine:
    with writing(engine) as connection:
        lock_setup(connection)
        if not sa.inspect(connection).has_table(SCHEMA.name):
            if not create:
                engine.dispose()
                raise NotFound("no server has kept fades or feedback in this database")
            METADATA.create_all(connection)
            for statement in _APPEND_ONLY[engine.dialect.name]:
                connection.exec_driver_sql(statement)
            connection.execute(SCHEMA.insert().values(version=SCHEMA_VERSION))
        found = connection.execute(sa.select(SCHEMA.c.version)).scalar_one()
    if found != SCHEMA_VERSION:
        engine.dispose()
        raise FailedPrecondition(
            f"the fade database has schema version {found}, this server knows {SCHEMA_VERSION}: "
            "install the version of crossfade that wrote it, or give another database"
        )
    return engine


def lock_setup(connection: sa.Connection) -> None:
    """Keeps other processes from making tables until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SETUP_LOCK)))


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        raise InvalidArgument(_LIKE) from None
    if parsed.drivername == "sqlite":
        # Statements wait for another process's transaction for so many seconds.
        engine = sa.create_engine(parsed, connect_args={"timeout": 30})
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.drivername in {"postgresql", "postgresql+psycopg"}:
        try:
            return sa.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        except ModuleNotFoundError:
            raise MissingExtra("postgresql", "a fade database in PostgreSQL") from None
    raise InvalidArgument(_LIKE)


def _set_up_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy says, not by guess
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A reader that turned writer could not wait for another writer: writers say so at once.
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextlib.contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that writes: all of it lasts, or nothing.

    Raises:
        Unavailable: the database cannot be reached, is full or stays locked.
        FailedPrecondition: the file is damaged or no database.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except (exc.OperationalError, exc.InterfaceError) as error:
        raise Unavailable("the fade database cannot be used now", retry_after_s=1) from error
    except exc.DatabaseError as error:
        if type(error) is not exc.DatabaseError:  # a constraint's: the caller knows what it means
            raise
        raise FailedPrecondition("the fade database's file is damaged or no database") from error


@contextlib.contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that only reads; raises as ``writing`` does."""
    with writing(engine.execution_options(reads=True)) as connection:
        yield connection
