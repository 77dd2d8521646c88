"""Kill -9 while truths move weights: each that was told counts once, and the replay fits."""

from __future__ import annotations

import random
import time

from crossfade.serving.fade.adapting_store import fault
from crossfade.serving.fade.database import FadeDatabase
from tests.serving.fade.killing import told_before_death
from tests.serving.fade.test_adapting_store import RIGHT, SETUP

KILLS = 4
WRITER = """
import itertools, sys
from crossfade.serving.fade.database import FadeDatabase
from tests.serving.fade.test_adapting_store import RIGHT, SETUP
url, life = sys.argv[1:]
store = FadeDatabase(url).adapting
begun = store.open(SETUP, 0.0)
for n in itertools.count():
    request = f"{life}-{n}"
    store.claimed(begun, {request: RIGHT}, float(n))
    store.truths("pair", {request: "tulip"}, float(n))
    print(request, flush=True)
"""


def test_every_truth_that_was_told_counts_once_after_each_kill(url: str) -> None:
    database = FadeDatabase(url)
    begun = database.adapting.open(SETUP, 0.0)
    rng = random.Random(5)
    told: list[str] = []
    for life in range(KILLS):
        told += told_before_death(WRITER, url, f"life{life}", most_s=0.1, rng=rng)
        before = -1
        while (now := database.adapting.adaptations("pair")[0]).version != before:
            before = now.version  # a server may still commit what a dead client had sent
            time.sleep(0.05)
        updates = database.adapting.updates(now)
        assert fault(now, updates) == ""
        counted = [one.request_id for one in updates]
        assert len(set(counted)) == len(counted), "once"
        assert set(told) <= set(counted)
        assert len(counted) <= len(told) + life + 1
    again = database.adapting.truths("pair", dict.fromkeys(told, "tulip"), 0.0)
    assert set(again.values()) == {"repeated"}
    database.adapting.claimed(begun, dict.fromkeys(told, RIGHT), 0.0)
    assert database.adapting.adaptations("pair")[0].version == now.version
    database.close()
