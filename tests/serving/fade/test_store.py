"""Fades in a database: one decision at a time, all of it or nothing, and never rewritten."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from crossfade.runtimes.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    MissingExtra,
    NotFound,
    Unavailable,
)
from crossfade.serving.fade import tables
from crossfade.serving.fade.database import FadeDatabase
from crossfade.serving.fade.policy import Position, Status
from crossfade.serving.fade.records import Fade, Superseded
from crossfade.serving.fade.store import FadeStore
from tests.serving.fade.observed import PLAN, observed

NOW_S = 1_700_000_000.25


@pytest.fixture
def database(url: str) -> Iterator[FadeDatabase]:
    opened = FadeDatabase(url)
    yield opened
    opened.close()


@pytest.fixture
def fades(database: FadeDatabase) -> FadeStore:
    return database.fades


def started(fades: FadeStore, name: str = "flowers") -> Fade:
    return fades.start(name, "automl", "custom", PLAN, now_s=NOW_S, actor="ann")


def test_a_fade_is_read_as_it_was_started(fades: FadeStore) -> None:
    fade = started(fades)
    assert fade == fades.get("flowers")
    assert fade.position == Position(Status.RUNNING, 0, NOW_S)
    assert fades.newest() == [fade]
    (record,) = fades.records(fade)
    assert (record.action, record.actor, record.version) == ("start", "ann", 0)


def test_one_fade_of_a_name_is_live(fades: FadeStore) -> None:
    fade = started(fades)
    with pytest.raises(AlreadyExists):
        started(fades)
    other = started(fades, "fruit")
    fades.act(fade, "roll_back", "enough", now_s=NOW_S + 1, actor="ann")
    again = started(fades)
    assert again.id != fade.id
    assert fades.get("flowers") == again
    assert {newest.id for newest in fades.newest()} == {other.id, again.id}


def test_what_is_not_there_is_not_found(fades: FadeStore) -> None:
    with pytest.raises(NotFound):
        fades.get("flowers")
    with pytest.raises(InvalidArgument):
        started(fades, "x" * 200)


def test_a_whole_fade_with_its_records(fades: FadeStore) -> None:
    fade, now_s = started(fades), NOW_S
    for step in range(3):
        now_s += 100
        assert fades.decide(fade, now_s)[1].action == "stay", "nothing was seen yet"
        fades.publish(fade, "a", observed(pairs=4000, alone=20_000))
        fades.publish(fade, "b", observed(pairs=3000, alone=20_000))
        fade, decision = fades.decide(fade, now_s)
        assert decision.action == "advance", decision.reason
        assert fade == fades.get("flowers")
        assert fade.position.step == min(step + 1, 2)
    assert fade.position.status is Status.PROMOTED
    assert fades.newest() == [fade]
    records = fades.records(fade)
    assert [r.version for r in records] == [0, 1, 2, 3]
    assert [r.action for r in records] == ["start", *3 * ["advance"]]
    assert [r.step for r in records] == [0, 1, 2, 2]
    assert [r.at_s for r in records] == [NOW_S + 100 * n for n in range(4)]
    both = observed(pairs=4000, alone=20_000)
    both.add(observed(pairs=3000, alone=20_000))
    assert records[1].evidence == both.plain()
    found = {f["metric"]: f for f in records[1].findings}
    assert found["errors"]["bounds"]["count"] == 7000
    assert set(found) == {"agreement", "errors", "latency_p50"}


def test_a_guardrail_rolls_back_and_says_why(fades: FadeStore) -> None:
    fade = started(fades)
    fades.publish(fade, "a", observed(pairs=500, candidate_errors=0.1))
    fade, decision = fades.decide(fade, NOW_S + 1)
    assert decision.action == "roll_back"
    assert fades.get("flowers").position.status is Status.ROLLED_BACK
    assert "errors" in fades.records(fade)[-1].reason


def test_operators_pause_resume_promote_and_go_back(fades: FadeStore) -> None:
    fade = started(fades)
    for action, status in (
        ("pause", Status.PAUSED),
        ("resume", Status.RUNNING),
        ("promote", Status.PROMOTED),
        ("roll_back", Status.ROLLED_BACK),
    ):
        fade = fades.act(fade, action, "because", now_s=NOW_S, actor="ann")
        assert fades.get("flowers").position.status is status
    with pytest.raises(FailedPrecondition, match="rolled back"):
        fades.act(fade, "resume", "because", now_s=NOW_S, actor="ann")
    assert [r.actor for r in fades.records(fade)] == ["ann"] * 5


def test_whoever_read_an_older_position_decides_nothing(fades: FadeStore) -> None:
    old = started(fades)
    fades.act(old, "pause", "first", now_s=NOW_S, actor="ann")
    with pytest.raises(Superseded):
        fades.act(old, "promote", "second", now_s=NOW_S, actor="bob")
    assert [r.action for r in fades.records(old)] == ["start", "pause"]


def test_a_replica_writes_over_its_own_evidence_only(fades: FadeStore) -> None:
    fade = started(fades)
    fades.publish(fade, "a", observed(pairs=10))
    fades.publish(fade, "b", observed(pairs=5))
    fades.publish(fade, "a", observed(pairs=30))
    assert fades.evidence(fade).samples(mirrored=True) == 35
    after = fades.act(fade, "pause", "", now_s=NOW_S, actor="ann")
    assert fades.evidence(after).samples(mirrored=True) == 35, "the same step"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE crossfade_decisions SET reason = 'another'",
        "DELETE FROM crossfade_decisions",
    ],
)
def test_a_decision_cannot_be_rewritten(url: str, fades: FadeStore, statement: str) -> None:
    fade = started(fades)
    engine = tables.connect(url)
    with pytest.raises(exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
    assert len(fades.records(fade)) == 1


# -- several at once ------------------------------------------------------------------------------


def test_threads_that_decide_at_once_advance_once(fades: FadeStore) -> None:
    fade = started(fades)
    fades.publish(fade, "a", observed(pairs=4000))
    outcomes: list[str] = []

    def one() -> None:
        try:
            outcomes.append(fades.decide(fade, NOW_S + 100)[1].action)
        except Superseded:
            outcomes.append("superseded")

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["advance", *["superseded"] * 5]
    assert [r.action for r in fades.records(fade)] == ["start", "advance"]


REPLICA = """
import sys
from crossfade.runtimes.core.errors import AlreadyExists
from crossfade.serving.fade.database import FadeDatabase
from crossfade.serving.fade.records import Prediction
from crossfade.serving.fade.records import Superseded
from tests.serving.fade.observed import PLAN, observed
url, replica = sys.argv[1:]
database = FadeDatabase(url)  # all at once on an empty database
try:
    database.fades.start("flowers", "automl", "custom", PLAN, now_s=0.0, actor=replica)
except AlreadyExists:
    pass
while True:
    fade = database.fades.get("flowers")
    if fade.position.status.value == "PROMOTED":
        break
    name = f"{replica}-{fade.position.step}"
    database.fades.publish(fade, replica, observed(pairs=1500, alone=15_000))
    database.feedback.predicted(fade, [Prediction(name, "rose", "rose")], 0.0)
    database.feedback.truths("flowers", {name: "rose", f"all-{fade.position.step}": "rose"}, 0.0)
    try:
        database.fades.decide(fade, fade.position.step_started_s + 100.0)
    except Superseded:
        pass
"""


def test_processes_share_one_fade(url: str) -> None:
    """Four replicas start, publish and decide as fast as they can, on one database."""
    command = [sys.executable, "-c", REPLICA, url]
    replicas = [
        subprocess.Popen([*command, f"r{n}"], stderr=subprocess.PIPE, text=True) for n in range(4)
    ]
    errors = [replica.communicate(timeout=100)[1] for replica in replicas]
    assert [replica.returncode for replica in replicas] == [0] * 4, errors
    database = FadeDatabase(url)
    fade = database.fades.get("flowers")
    records = database.fades.records(fade)
    assert [r.action for r in records] == ["start", *3 * ["advance"]]
    assert [r.version for r in records] == [0, 1, 2, 3]
    assert [r.step for r in records] == [0, 1, 2, 2]
    assert fade.version == 3
    database.close()


# -- the database itself --------------------------------------------------------------------------


def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    engine = tables.connect(url)
    with tables.writing(engine) as connection:
        connection.execute(tables.SCHEMA.update().values(version=tables.SCHEMA_VERSION + 1))
    engine.dispose()
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match="schema version 2, this server knows 1"):
            FadeDatabase(url)


@pytest.mark.parametrize("wrong", ["", "kept.db", "mysql://host/x", "sqlite+aiosqlite:///x"])
def test_a_url_that_is_none_is_refused_without_being_quoted(wrong: str) -> None:
    with pytest.raises(InvalidArgument) as found:
        FadeDatabase(wrong)
    assert "fade database" in found.value.message
    assert not wrong or wrong not in found.value.message


@pytest.mark.parametrize(
    "gone",
    ["sqlite:////nowhere/at/all.db", "postgresql://u:secret@127.0.0.1:1/x?connect_timeout=2"],
)
def test_a_database_that_cannot_be_reached_is_unavailable(gone: str) -> None:
    if gone.startswith("postgresql"):
        pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(Unavailable, match=r"cannot be used now: .") as found:
        FadeDatabase(gone)
    assert "secret" not in found.value.message


def test_what_only_reads_makes_no_database(tmp_path: Path) -> None:
    file = tmp_path / "typo.db"
    with pytest.raises(NotFound, match=r"there is no database at .*typo\.db"):
        FadeDatabase(f"sqlite:///{file}", create=False)
    assert not file.exists()
    file.touch()
    with pytest.raises(NotFound, match="no server has kept"):
        FadeDatabase(f"sqlite:///{file}", create=False)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"these are my holiday pictures" * 200)
    with pytest.raises(FailedPrecondition):
        FadeDatabase(f"sqlite:///{tmp_path / 'x.db'}")


@pytest.mark.parametrize(("module", "extra"), [("sqlalchemy", "fade"), ("psycopg", "postgresql")])
def test_a_missing_driver_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("tables", "store", "feedback"):
        if module == "sqlalchemy":
            monkeypatch.delitem(sys.modules, f"crossfade.serving.fade.{name}", raising=False)
            monkeypatch.delattr(f"crossfade.serving.fade.{name}", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra) as found:
        FadeDatabase("postgresql://127.0.0.1:1/x")
    assert found.value.extra == extra


def test_what_is_kept_is_plain(url: str, fades: FadeStore) -> None:
    """Another program can read the records: JSON without NaN or infinity."""
    fade = started(fades)
    fades.publish(fade, "a", observed(pairs=300, candidate_errors=0.2))
    fades.decide(fade, NOW_S)
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        texts = connection.exec_driver_sql("SELECT findings FROM crossfade_decisions").scalars()

        def refuse(word: str) -> None:
            raise AssertionError(word)

        assert [type(json.loads(text, parse_constant=refuse)) for text in texts] == [list, list]
    engine.dispose()
