"""Where fades and feedback are kept; the one module that the rest of the server imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossfade.runtimes.core.errors import MissingExtra

if TYPE_CHECKING:
    from crossfade.serving.fade.feedback import Feedback
    from crossfade.serving.fade.store import FadeStore


class FadeDatabase:
    """An open database. Thread-safe; one for a process.

    Attributes:
        fades: the fades and their decisions.
        feedback: predictions and ground truth.
    """

    fades: FadeStore
    feedback: Feedback

    def __init__(
        self, url: str, *, max_age_s: float = 30 * 86_400.0, max_rows: int = 1_000_000
    ) -> None:
        """Opens it.

        Args:
            url: as ``tables.connect`` takes it.
            max_age_s: after so long a prediction or truth without its other half is forgotten.
            max_rows: of them kept at most.

        Raises:
            MissingExtra: SQLAlchemy or the database's driver is not installed.
            CrossfadeError: as ``tables.connect`` says.
        """
        try:
            from crossfade.serving.fade import feedback, store, tables
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "sqlalchemy":
                raise
            raise MissingExtra("fade", "fading") from None
        self._engine = tables.connect(url)
        self.fades = store.FadeStore(self._engine)
        self.feedback = feedback.Feedback(self._engine, feedback.Retention(max_age_s, max_rows))

    def close(self) -> None:
        """Closes all connections; called once, when nobody uses it any more."""
        self._engine.dispose()
