"""The peers by name, in the order of the report."""

from __future__ import annotations

from collections.abc import Mapping

from crossfade.benchmarks.peers.crossfade import Crossfade
from crossfade.benchmarks.peers.floor import Floor
from crossfade.benchmarks.peers.kserve import KServe
from crossfade.benchmarks.peers.mlserver import MLServer
from crossfade.benchmarks.peers.peer import Peer
from crossfade.benchmarks.peers.triton import Triton

_CROSSFADE = (
    Crossfade(),  # on the native transport, where it is built
    Crossfade("crossfade-grpcio", ("--transport", "grpcio")),
)
PEERS: Mapping[str, Peer] = {
    peer.name: peer for peer in (Floor(), Triton(), KServe(), MLServer(), *_CROSSFADE)
}
