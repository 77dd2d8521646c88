"""What an answer says in one word: its first class, or its one value."""

from __future__ import annotations

from typing import Final

import numpy as np

from crossfade.runtimes.core.model import InferResponse
from crossfade.serving.fade.tables_limits import MAX_ANSWER

_LABELS: Final = "labels"
