"""Kill -9 in the middle of writing, again and again: nothing half-done, nothing told is lost."""

from __future__ import annotations

import random
import time

import pytest

from crossfade.serving.fade.database import FadeDatabase
from crossfade.serving.fade.records import Fade, Prediction, Record
from tests.serving.fade.killing import told_before_death
from tests.serving.fade.observed import PLAN

KILLS = 12
WRITER = """
import itertools, sys
from crossfade.serving.fade.database import FadeDatabase
from crossfade.serving.fade.records import Fade, Prediction, Record
from tests.serving.fade.observed import observed
url, life = sys.argv[1:]
database = FadeDatabase(url)
fade = database.fades.get("flowers")
evidence = observed(pairs=1)
for n in itertools.count():
    action = "resume" if fade.position.status.value == "PAUSED" else "pause"
    fade = database.fades.act(fade, action, life, now_s=float(n), actor="writer")
    print("decided", fade.version, flush=True)
    evidence.add(observed(pairs=1))
    database.fades.publish(fade, life, evidence)
    request = f"{life}-{n}"
    database.feedback.predicted(fade, [Prediction(request, "rose", "oak")], 0.0)
    database.feedback.truths("flowers", {request: "rose"}, 0.0)
    print("joined", request, flush=True)
"""


def settled(database: FadeDatabase) -> tuple[Fade, list[Record]]:
    """A server of a database may still commit what a dead client had sent."""
    while True:
        fade = database.fades.get("flowers")
        records = database.fades.records(fade)
        time.sleep(0.05)
        if database.fades.get("flowers") == fade:
            return fade, records


@pytest.mark.timeout(300)
def test_every_decision_that_was_told_is_there_after_each_kill(url: str) -> None:
    database = FadeDatabase(url)
    fade = database.fades.start("flowers", "automl", "custom", PLAN, now_s=0, actor="ann")
    rng = random.Random(5)
    joined: set[str] = set()
    for life in range(KILLS):
        told = told_before_death(WRITER, url, f"life{life}", most_s=0.15, rng=rng)
        joined.update(line.split()[1] for line in told if line.startswith("joined"))
        last_told = max(int(line.split()[1]) for line in told if line.startswith("decided"))

        fade, records = settled(database)
        assert last_told <= fade.version <= last_told + 1
        assert [r.version for r in records] == list(range(fade.version + 1)), "an unbroken chain"
        assert (records[-1].status, records[-1].step) == (fade.position.status, fade.position.step)
    labels = database.fades.evidence(fade).quality_pairs.counts
    assert labels[0] in range(len(joined), len(joined) + KILLS + 1), "each counted once"
    again = database.feedback.truths("flowers", dict.fromkeys(joined, "rose"), 0.0)
    assert set(again.values()) == {"repeated"}
    found = [Prediction(request, "rose", "oak") for request in joined]
    database.feedback.predicted(fade, found, 0.0)
    assert database.fades.evidence(fade).quality_pairs.counts.tolist() == labels.tolist()
    database.close()
