"""The tables of weights that follow feedback; they come to a database of fades when it is opened.

Needs the extra [fade].
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from crossfade.serving.fade.records import MAX_ANSWER, MAX_REQUEST_ID
from crossfade.serving.fade.tables import MAX_NAME, lock_setup, writing

METADATA: Final = sa.MetaData()

ADAPTATIONS = sa.Table(
    "crossfade_adaptations",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(MAX_NAME), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),  # of the setup
    sa.Column("setup", sa.Text, nullable=False),
    sa.Column("started_s", sa.Double, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),  # rises with each record
    sa.UniqueConstraint("name", "digest"),
)
UPDATES = sa.Table(
    "crossfade_adaptation_updates",
    METADATA,
    sa.Column("adaptation_id", sa.ForeignKey(ADAPTATIONS.c.id), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("at_s", sa.Double, nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("actor", sa.String(MAX_NAME), nullable=False),
    sa.Column("request_id", sa.String(MAX_REQUEST_ID)),
    sa.Column("truth", sa.String(MAX_ANSWER)),
    sa.Column("claims", sa.Text, nullable=False),
    sa.Column("weights_before", sa.Text, nullable=False),
    sa.Column("weights_after", sa.Text, nullable=False),
    sa.Column("learner", sa.Integer, nullable=False),
)
CLAIMS = sa.Table(
    "crossfade_adaptation_claims",
    METADATA,
    sa.Column("name", sa.String(MAX_NAME), primary_key=True),
    sa.Column("request_id", sa.String(MAX_REQUEST_ID), primary_key=True),
    sa.Column("adaptation_id", sa.Integer),  # null while only the truth is known
    sa.Column("claims", sa.Text),
    sa.Column("truth", sa.String(MAX_ANSWER)),
    sa.Column("seen_s", sa.Double, nullable=False, index=True),
)
_APPEND_ONLY: Final = {
    "sqlite": [
        f"CREATE TRIGGER crossfade_adaptation_no_{verb} BEFORE {verb} ON {UPDATES.name} "
        "BEGIN SELECT RAISE(ABORT, 'updates are append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE TRIGGER crossfade_adaptation_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
        f"ON {UPDATES.name} EXECUTE FUNCTION crossfade_refuse()",
    ],
}


def set_up(engine: sa.Engine) -> None:
    """Makes the tables where they are not there; safe from many processes at once.

    Raises:
        Unavailable: the database cannot be reached.
    """
    with writing(engine) as connection:
        lock_setup(connection)
        if not sa.inspect(connection).has_table(UPDATES.name):
            METADATA.create_all(connection)
            for statement in _APPEND_ONLY[engine.dialect.name]:
                connection.exec_driver_sql(statement)
