"""``crossfade fade``: what it prints and draws of the server's documents."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from crossfade.serving.cli import fade, fade_picture
from crossfade.serving.fade import documents
from crossfade.serving.fade.evidence import StepEvidence
from crossfade.serving.fade.plan import Plan
from crossfade.serving.fade.policy import Position, Status, decide
from crossfade.serving.fade.records import Fade, Record, finite

SVG = "{http://www.w3.org/2000/svg}"
PLAN = Plan.model_validate({"steps": [{"traffic_percent": "shadow"}, {"traffic_percent": 100}]})


def seen(pairs: int) -> StepEvidence:
    evidence = StepEvidence()
    evidence.observe_pairs([True] * pairs, [[False, False]] * pairs, [[1.0, 1.1]] * pairs)
    return evidence


def record(version: int, action: str, status: Status, step: int, pairs: int = 0) -> Record:
    position, evidence = Position(Status.RUNNING, step, 0), seen(pairs)
    findings = [
        finite(dataclasses.asdict(each)) for each in decide(PLAN, position, evidence, 0).findings
    ]
    return Record(
        *(version, 1000.0 + 60 * version, "policy", action, status, step, "because <it> & more"),
        findings=findings if pairs else [],
        evidence=evidence.plain(),
    )


def a_fade(status: Status, step: int = 0) -> Fade:
    return Fade(1, "flowers", "flowers@automl", "custom", PLAN, Position(status, step, 1000.0), 2)


HISTORY = [
    record(0, "start", Status.RUNNING, 0),
    record(1, "advance", Status.RUNNING, 1, 3000),
    record(2, "roll_back", Status.ROLLED_BACK, 1, 100),
]


def document(status: Status, pairs: int) -> dict[str, Any]:
    fade_, evidence = a_fade(status), seen(pairs)
    decision = decide(PLAN, fade_.position, evidence, 1010.0)
    found = documents.status(fade_, evidence, decision, HISTORY[1], 1010.0)
    return {**found, "answered": {"primary": 1234}}


def test_a_status_says_what_an_advance_waits_for() -> None:
    text = fade.text(document(Status.RUNNING, 20))
    assert "flowers: RUNNING, step 1 of 2: 0 % of the traffic, 100 % mirrored" in text
    assert "this step: 10 of 3600 s, 20 of 1,000 samples, 0 with ground truth" in text
    assert "waits: the step's minimum time is over in 3590 s" in text
    assert "waits: 20 of 1000 samples are there" in text
    assert "primary 1,234" in text
    (latency,) = [line for line in text.splitlines() if line.strip().startswith("latency_p99")]
    assert latency.split()[1:7] == ["open", *latency.split()[2:3], "0", "..", "inf", "<"]


def test_a_status_after_the_end() -> None:
    text = fade.text(document(Status.PROMOTED, 0))
    assert text.startswith("flowers: PROMOTED, from flowers@automl to custom\n")
    assert "waits" not in text
    assert "last decision: advance at" in text


def test_the_picture_is_of_the_record() -> None:
    root = ET.fromstring(fade_picture.draw(documents.history(a_fade(Status.ROLLED_BACK), HISTORY)))
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles[0] == "Fade of flowers: from flowers@automl to custom"
    assert "roll back: because <it> & more" in titles
    assert any(title and title.startswith("3000 seen, surely in") for title in titles)
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"agreement", "errors", "latency p50", "latency p99", "minutes since the start"} <= texts
    (line,) = root.iter(f"{SVG}polyline")
    heights = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    assert heights[0] == heights[-1] == max(heights)  # it begins and ends without a share
    assert min(heights) < heights[0]  # and had all of the traffic between


def test_a_promotion_and_equal_limits_are_seen() -> None:
    decisions = [*HISTORY[:2], record(2, "advance", Status.PROMOTED, 1, 3000)]
    root = ET.fromstring(fade_picture.draw(documents.history(a_fade(Status.PROMOTED), decisions)))
    titled = {
        circle[0].text: circle.attrib["fill"] for circle in root.iter(f"{SVG}circle") if circle
    }
    colours = [titled[f"{what}: because <it> & more"] for what in ("start", "advance", "promote")]
    assert len(set(colours)) == 3
    assert {"start", "advance", "promote"} <= {text.text for text in root.iter(f"{SVG}text")}
    dashed = [each.attrib for each in root.iter(f"{SVG}line") if "stroke-dasharray" in each.attrib]
    places = {(each["y1"], each["x1"]) for each in dashed}
    assert len(places) == len(dashed)


def test_a_picture_of_a_fade_that_has_just_begun() -> None:
    document_ = documents.history(a_fade(Status.RUNNING), HISTORY[:1])
    root = ET.fromstring(fade_picture.draw(document_))
    numbers = [float(v) for e in root.iter() for k, v in e.attrib.items() if k in {"cx", "cy"}]
    assert all(number == pytest.approx(number) for number in numbers)
