"""Ground truth by request id: in any order, any number of times, counted once."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.fade.database import FadeDatabase
from crossfade.serving.fade.records import Fade, Prediction, Retention
from tests.serving.fade.observed import PLAN, observed


@pytest.fixture
def database(url: str) -> Iterator[FadeDatabase]:
    opened = FadeDatabase(url, Retention(max_age_s=100, max_rows=5_000))
    yield opened
    opened.close()


def started(database: FadeDatabase, name: str = "flowers") -> Fade:
    return database.fades.start(name, "automl", "custom", PLAN, now_s=0, actor="ann")


def pairs(database: FadeDatabase, fade: Fade) -> list[int]:
    return database.fades.evidence(fade).quality_pairs.counts.tolist()


ANSWERS = [
    Prediction("both right", "rose", "rose"),
    Prediction("worse", "rose", "tulip"),
    Prediction("better", "tulip", "rose"),
    Prediction("both wrong", "tulip", "oak"),
    Prediction("primary alone", "rose", None),
    Prediction("candidate alone", None, "tulip"),
    Prediction("nobody answered", None, None),
]
TRUTHS = {each.request_id: "rose" for each in ANSWERS}


@pytest.mark.parametrize("late", [True, False])
def test_each_comparison_counts_where_it_belongs(database: FadeDatabase, late: bool) -> None:
    fade, feedback = started(database), database.feedback
    if late:
        feedback.predicted(fade, ANSWERS, 1)
        assert set(feedback.truths("flowers", TRUTHS, 2).values()) == {"joined"}
    else:
        assert set(feedback.truths("flowers", TRUTHS, 1).values()) == {"waiting"}
        feedback.predicted(fade, ANSWERS, 2)
    evidence = database.fades.evidence(fade)
    assert evidence.quality_pairs.counts.tolist() == [1, 2, 1]
    assert evidence.quality_alone.counts.tolist() == [1, 1, 0]


def test_what_comes_again_changes_nothing(database: FadeDatabase) -> None:
    fade, feedback = started(database), database.feedback
    for _ in range(3):
        feedback.predicted(fade, ANSWERS, 1)
        feedback.truths("flowers", TRUTHS, 2)
    feedback.predicted(fade, [Prediction("worse", "rose", "rose")], 3)
    found = feedback.truths("flowers", {"worse": "rose", "better": "oak", "new": "oak"}, 4)
    assert found == {"worse": "repeated", "better": "conflict", "new": "waiting"}
    assert feedback.truths("flowers", {"better": "rose"}, 5) == {"better": "repeated"}
    assert pairs(database, fade) == [1, 2, 1]


def test_a_late_label_counts_towards_the_step_in_which_it_comes(database: FadeDatabase) -> None:
    fade, feedback = started(database), database.feedback
    feedback.predicted(fade, ANSWERS, 1)
    feedback.truths("flowers", {"worse": "rose"}, 2)
    moved = advance(database, fade)
    feedback.truths("flowers", TRUTHS, 3)
    assert pairs(database, fade) == [1, 0, 0]
    assert pairs(database, moved) == [0, 2, 1]
    assert database.fades.evidence(moved).quality_alone.counts.sum() == 0, "of another split"


def advance(database: FadeDatabase, fade: Fade) -> Fade:
    database.fades.publish(fade, "a", observed(pairs=4000))
    moved, decision = database.fades.decide(fade, 1_000)
    assert decision.action == "advance", decision.reason
    return moved


def test_labels_of_another_fade_do_not_count(database: FadeDatabase) -> None:
    old, feedback = started(database), database.feedback
    other = started(database, "fruit")
    feedback.predicted(old, ANSWERS, 1)
    assert feedback.truths("fruit", {"worse": "rose"}, 2) == {"worse": "waiting"}
    database.fades.act(old, "roll_back", "", now_s=3, actor="ann")
    new = started(database)
    assert feedback.truths("flowers", {"worse": "rose"}, 4) == {"worse": "joined"}
    for fade in (old, other, new):
        assert pairs(database, fade) == [0, 0, 0]


@pytest.mark.parametrize("wrong", ["", "x" * 2000, "a\0b"])
def test_what_cannot_be_kept_is_refused_as_a_whole(database: FadeDatabase, wrong: str) -> None:
    fade, feedback = started(database), database.feedback
    for truths in ({"good": "rose", "bad": wrong}, {"good": "rose", wrong: "rose"}):
        with pytest.raises(InvalidArgument):
            feedback.truths("flowers", truths, 1)
    with pytest.raises(InvalidArgument):
        feedback.predicted(fade, [Prediction("good", wrong, "rose")], 1)
    assert feedback.truths("flowers", {"good": "rose"}, 2) == {"good": "waiting"}


def test_answers_in_any_alphabet_are_kept(database: FadeDatabase) -> None:
    fade, feedback = started(database), database.feedback
    feedback.predicted(fade, [Prediction("'; --\N{ROSE}", "薔薇", "Röschen")], 1)
    assert feedback.truths("flowers", {"'; --\N{ROSE}": "薔薇"}, 2) == {"'; --\N{ROSE}": "joined"}
    assert pairs(database, fade) == [1, 0, 0]


# -- its size -------------------------------------------------------------------------------------


def rows(url: str) -> int:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        found: int = connection.exec_driver_sql(
            "SELECT count(*) FROM crossfade_feedback"
        ).scalar_one()
    engine.dispose()
    return found


def test_the_oldest_go_when_there_are_too_many(url: str, database: FadeDatabase) -> None:
    fade, feedback = started(database), database.feedback
    for batch in range(20):
        found = [Prediction(f"{batch}-{n}", "rose", "rose") for n in range(600)]
        feedback.predicted(fade, found, batch)
        assert rows(url) <= 6_600
    newest = feedback.truths("flowers", {"19-599": "rose", "0-0": "rose"}, 21)
    assert newest == {"19-599": "joined", "0-0": "waiting"}


def test_what_is_too_old_goes(url: str, database: FadeDatabase) -> None:
    fade, feedback = started(database), database.feedback
    feedback.predicted(fade, ANSWERS, 0)
    feedback.truths("flowers", {f"t{n}": "rose" for n in range(1_000)}, 101)
    assert rows(url) == 1_000


# -- in any order ---------------------------------------------------------------------------------

IDS = st.sampled_from("abcdef")
LABEL = st.sampled_from(["rose", "oak"])
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("predicted"), IDS, st.tuples(LABEL, LABEL)),
        st.tuples(st.just("truth"), IDS, LABEL),
    ),
    max_size=25,
)


@settings(max_examples=25)
@given(EVENTS)
def test_any_order_counts_each_request_once_by_what_came_first(events: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = FadeDatabase(f"sqlite:///{Path(folder) / 'fades.db'}")
        fade, feedback = started(database), database.feedback
        answers: dict[str, tuple[str, str]] = {}
        truths: dict[str, str] = {}
        for kind, request_id, value in events:
            if kind == "predicted":
                answers.setdefault(request_id, value)
                feedback.predicted(fade, [Prediction(request_id, *value)], 1)
            else:
                truths.setdefault(request_id, value)
                feedback.truths("flowers", {request_id: value}, 1)
        expected = [0, 0, 0]
        for request_id in answers.keys() & truths.keys():
            right = [answer == truths[request_id] for answer in answers[request_id]]
            expected[1 + right[1] - right[0]] += 1
        assert pairs(database, fade) == expected
        database.close()


def test_many_writers_count_each_request_once(database: FadeDatabase) -> None:
    """Predictions and truths of the same requests arrive at the same time, some of them twice."""
    fade, feedback = started(database), database.feedback
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            for start in range(0, 200, 20):
                ids = [f"r{n}" for n in range(start, start + 20)]
                if writer % 2:
                    found = [Prediction(i, "rose", "oak") for i in reversed(ids)]
                    feedback.predicted(fade, found, 1)
                else:
                    feedback.truths("flowers", dict.fromkeys(ids, "rose"), 1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert pairs(database, fade) == [200, 0, 0]
