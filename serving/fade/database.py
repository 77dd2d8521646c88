"""Where fades and feedback are kept; imports what a database needs only to open one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from crossfade.runtimes.core.errors import MissingExtra
from crossfade.serving.fade.records import Retention

if TYPE_CHECKING:
    from crossfade.serving.fade.adapting_store import AdaptingStore
    from crossfade.serving.fade.feedback import Feedback
    from crossfade.serving.fade.store import FadeStore

DEFAULT_RETENTION: Final = Retention()
_MAX_CLAIMS: Final = 100_000  # rows of at most 6 kB


class FadeDatabase:
    """An open database. Thread-safe; one for a process.

    Attributes:
        fades: the fades and their decisions.
        feedback: predictions and ground truth.
        adapting: weights of ensembles that follow it.
    """

    fades: FadeStore
    feedback: Feedback
    adapting: AdaptingStore

    def __init__(
        self, url: str, retention: Retention = DEFAULT_RETENTION, *, create: bool = True
    ) -> None:
        """Opens it.

        Args:
            url: as ``tables.connect`` takes it.
            retention: of predictions and truths.
            create: makes it where there is none.

        Raises:
            MissingExtra: SQLAlchemy or the database's driver is not installed.
            CrossfadeError: as ``tables.connect`` says.
        """
        try:
            from crossfade.serving.fade import (
                adapting_store,
                adapting_tables,
                feedback,
                store,
                tables,
            )
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "sqlalchemy":
                raise
            raise MissingExtra("fade", "fading") from None
        self._engine = tables.connect(url, create=create)
        adapting_tables.set_up(self._engine)
        self.fades = store.FadeStore(self._engine)
        self.feedback = feedback.Feedback(self._engine, retention)
        claims = dataclasses.replace(retention, max_rows=min(retention.max_rows, _MAX_CLAIMS))
        self.adapting = adapting_store.AdaptingStore(self._engine, claims)

    def close(self) -> None:
        """Closes all connections; called once, when nobody uses it any more."""
        self._engine.dispose()
