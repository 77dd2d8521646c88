"""The same requests to Crossfade and to a real Triton: what differs is listed, nothing else does.

``make triton`` installs the server; without it these tests skip.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.e2e.differential import grpc_infer_cases, grpc_other_cases, http_cases, servers
from tests.e2e.differential.known import KNOWN
from tests.e2e.differential.peers import Case, Outcome, Peer

# What loads and unloads models comes last.
CASES = (*grpc_infer_cases.cases(), *http_cases.cases(), *grpc_other_cases.cases())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Peer, Peer]]:
    root = tmp_path_factory.mktemp("differential")
    with servers.triton(root) as theirs, servers.crossfade(root) as ours:
        pair = Peer(*ours), Peer(*theirs)
        yield pair
        for peer in pair:
            peer.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_same_answer(both: tuple[Peer, Peer], case: Case) -> None:
    ours, theirs = (case.run(peer) for peer in both)
    known = [entry for entry in KNOWN if entry.matches(case.id)]
    if not known:
        assert ours == theirs
        return
    (entry,) = known
    assert ours != theirs, f"no longer different: {entry.pattern}"
    assert (_statuses(ours), _statuses(theirs)) == (entry.ours, entry.theirs)


def test_the_list_of_differences() -> None:
    """Each is about some request, and is told to users."""
    ids = [case.id for case in CASES]
    assert len(set(ids)) == len(ids)
    for entry in KNOWN:
        assert any(entry.matches(case_id) for case_id in ids), entry.pattern
    told = " ".join((ROOT / "docs" / "compatibility.md").read_text().casefold().split())
    assert not [entry.why for entry in KNOWN if entry.why.casefold() not in told]


def _statuses(outcomes: list[Outcome]) -> str:
    return " ".join(outcome.status for outcome in outcomes)
