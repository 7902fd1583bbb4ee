"""One writer at a time, readers never waiting: the same on SQLite and PostgreSQL.

A unit of work reads freely until its first change; there it waits for its
turn, which ends with the unit. Writers that registered the same fleet in
different orders would deadlock otherwise, and two promotions at once would both
replace the same predecessor.
"""

from __future__ import annotations

import threading
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session

__all__ = ["begin_turn", "take_turn", "take_turn_before_flush"]

_LOCK = 7_305_119
_PATIENCE = "30s"
_at_the_door = threading.Lock()
"""SQLite lets who waits look again after ever longer naps: of the threads of a process one naps, not all."""


def begin_turn(connection: Connection) -> None:
    """Wait until no other connection writes to the catalog; it is this one's turn until its transaction ends.

    Raises:
        OperationalError: another one wrote for longer than half a minute.
    """
    if connection.dialect.name == "sqlite":
        with _at_the_door:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def take_turn(session: Session) -> None:
    """`begin_turn`, once in a unit of work; what is read afterwards stays true until it ends."""
    if not session.info.get("writing"):
        begin_turn(session.connection())
        session.info["writing"] = True


def take_turn_before_flush(session: Session) -> None:
    """Have the session take its turn by itself before it writes changed rows."""

    def before_flush(flushing: Session, *_: Any) -> None:
        take_turn(flushing)

    event.listen(session, "before_flush", before_flush)
