"""``crossfade ensemble``: what an ensemble's weights learned."""

from __future__ import annotations

from typing import Any

from crossfade.serving.cli import ensemble_weights


def add(commands: Any) -> None:
    """Adds the subcommand."""
    about = "Look at what an ensemble's weights learned from feedback."
    parser = commands.add_parser("ensemble", help=about[0].lower() + about[1:-1], description=about)
    actions = parser.add_subparsers(title="what to do", metavar="ACTION", required=True)
    ensemble_weights.add(actions)
