"""Every test of a database runs on each kind of them."""

from __future__ import annotations

from tests.serving.fade.databases import postgresql, url

__all__ = ["postgresql", "url"]
