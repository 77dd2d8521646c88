"""Weights in a database: each truth moves them once, replicas agree, records tell everything."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import sqlalchemy as sa

from crossfade.ensemble.adapting import Settings, Setup, begin
from crossfade.ensemble.claims import pack
from crossfade.runtimes.core.errors import FailedPrecondition, NotFound
from crossfade.serving.cli.main import main
from crossfade.serving.fade.adapting_store import Adaptation, fault
from crossfade.serving.fade.adapting_tables import ADAPTATIONS, UPDATES
from crossfade.serving.fade.database import FadeDatabase

SETUP = Setup(
    *("pair", 1, ("one", "two"), ("rose", "tulip"), (0.5, 0.5), 0.4),
    Settings(0.1, 20, 1.0, 0.01, 0.1, 0.01),
)
RIGHT = pack(np.array([[0.4, 0.6], [0.1, 0.9]]))  # both say tulip, the second is surer


def now(database: FadeDatabase) -> Adaptation:
    return database.adapting.adaptations("pair")[0]


def test_a_truth_moves_the_weights_once_whenever_it_comes(url: str) -> None:
    database = FadeDatabase(url)
    store = database.adapting
    begun = store.open(SETUP, 1.0)
    assert begun.state == begin(SETUP)
    store.claimed(begun, {"late": RIGHT}, 2.0)
    assert store.truths("pair", {"late": "tulip", "early": "tulip"}, 3.0) == {
        "late": "joined",
        "early": "waiting",
    }
    first = now(database)
    assert first.version == 1
    assert first.state.weights[1] > 0.5
    store.claimed(first, {"early": RIGHT, "late": RIGHT}, 4.0)
    assert now(database).version == 2, "the truth that waited counts when the claims come"
    again = store.truths("pair", {"late": "tulip", "early": "rose"}, 5.0)
    assert again == {"late": "repeated", "early": "conflict"}
    store.claimed(first, {"other": RIGHT}, 6.0)
    assert store.truths("pair", {"other": "daisy"}, 7.0) == {"other": "joined"}
    last = now(database)
    assert last.version == 2, "a truth that is no label of the ensemble teaches nothing"
    updates = store.updates(last)
    assert [(one.request_id, one.event.at_s) for one in updates] == [("late", 3.0), ("early", 4.0)]
    assert updates[0].event.claims == (0.6, 0.9)
    assert fault(last, updates) == ""
    assert store.open(SETUP, 9.0) == last, "a restart goes on where it was"
    with pytest.raises(NotFound):
        store.adaptations("nobody")
    database.close()


def test_replicas_that_learn_at_the_same_time_lose_nothing(url: str) -> None:
    databases = [FadeDatabase(url) for _ in range(2)]
    begun = [database.adapting.open(SETUP, 0.0) for database in databases]
    assert begun[0].id == begun[1].id
    failures: list[Exception] = []

    def live(number: int) -> None:
        store = databases[number].adapting
        try:
            for n in range(15):
                store.claimed(begun[number], {f"{number}-{n}": RIGHT}, float(n))
                store.truths("pair", {f"{number}-{n}": "tulip"}, float(n))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    last = now(databases[0])
    assert last.version == 30
    assert fault(last, databases[1].adapting.updates(last)) == ""
    for database in databases:
        database.close()


def test_claims_from_before_an_upgrade_of_the_learner_teach_nothing(url: str) -> None:
    database = FadeDatabase(url)
    old = database.adapting.open(dataclasses.replace(SETUP, learner=0), 0.0)
    database.adapting.claimed(old, {"a": RIGHT}, 0.0)
    assert database.adapting.truths("pair", {"a": "tulip"}, 0.0) == {"a": "joined"}
    assert now(database) == old
    assert "version 0 of the learner" in fault(old, [])
    assert database.adapting.open(SETUP, 1.0).id != old.id
    database.close()


def test_a_freeze_stays_until_an_operator_resumes(url: str) -> None:
    database = FadeDatabase(url)
    store = database.adapting
    begun = store.open(SETUP, 0.0)
    with pytest.raises(FailedPrecondition, match="not frozen"):
        store.resume("pair", "ann", 0.0)
    store.claimed(begun, {f"{n:03}": RIGHT for n in range(100)}, 0.0)
    store.truths("pair", {f"{n:03}": "rose" for n in range(100)}, 1.0)
    frozen = now(database)
    assert frozen.state.frozen
    assert frozen.state.weights == (0.5, 0.5), "what was good: the beginning"
    assert store.updates(frozen)[-1].event.action == "freeze"
    assert frozen.version < 100, "the rest changes nothing"
    (resumed,) = store.resume("pair", "ann", 2.0)
    assert resumed == now(database)
    store.claimed(begun, {"next": RIGHT}, 3.0)
    store.truths("pair", {"next": "tulip"}, 3.0)
    last = now(database)
    updates = store.updates(last)
    assert [(one.event.action, one.actor) for one in updates[-2:]] == [
        ("resume", "ann"),
        ("update", "feedback"),
    ]
    assert fault(last, updates) == ""
    database.close()


def test_records_cannot_be_changed_and_a_changed_state_is_seen(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    database = FadeDatabase(url)
    begun = database.adapting.open(SETUP, 0.0)
    database.adapting.claimed(begun, {"a": RIGHT}, 0.0)
    database.adapting.truths("pair", {"a": "tulip"}, 0.0)

    replay = ["ensemble", "replay", "pair", "--database", url]
    assert main(replay) == 0
    assert "1 records replayed: the weights are the same to the bit" in capsys.readouterr().out
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        with pytest.raises(sa.exc.DatabaseError, match="append-only"):
            connection.execute(UPDATES.update().values(claims="[0.1, 0.1]"))
        connection.rollback()
        other = begin(SETUP).to_json().replace("0.5", "0.4", 1)
        connection.execute(ADAPTATIONS.update().values(state=other))
        connection.commit()
    engine.dispose()
    assert main(replay) == 1
    assert "another one than that made again" in capsys.readouterr().err
    database.close()
