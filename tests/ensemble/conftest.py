"""How properties are tested: without a time limit for each example, since two cores are shared."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("crossfade", deadline=None, print_blob=True)
settings.load_profile("crossfade")
