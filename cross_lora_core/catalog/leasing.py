"""Leases: who computes a shared result now, so that two fleets do not compute it twice.

A lease is advice, not a lock: results are put if absent, so a holder that is
slow to extend its lease costs a second computation and nothing else.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select

from cross_lora_core.catalog.reading import Reader
from cross_lora_core.catalog.records import LeaseRecord, record_of
from cross_lora_core.catalog.tables import LeaseRow
from cross_lora_core.catalog.turns import take_turn

__all__ = ["Leaser"]


class Leaser(Reader):
    """Leases within one unit of work."""

    def take_lease(self, name: str, holder: str, seconds: float) -> LeaseRecord:
        """Take a lease that is free, expired or already this holder's, for so many seconds from now.

        Returns:
            The lease as it stands; another's, if `holder` is not the one who asked.
        """
        take_turn(self._session)
        row, now = self._lease_row(name), self._now()
        if row is None:
            row = LeaseRow(name=name, holder=holder, expires_at=now)
            self._session.add(row)
        if row.holder == holder or row.expires_at <= now:
            row.holder, row.expires_at = holder, now + timedelta(seconds=seconds)
            self._session.flush()
        return record_of(LeaseRecord, row)

    def end_lease(self, name: str, holder: str) -> None:
        """Free a lease before its time, if it is this holder's."""
        take_turn(self._session)
        self._session.execute(delete(LeaseRow).where(LeaseRow.name == name, LeaseRow.holder == holder))

    def lease(self, name: str) -> LeaseRecord | None:
        """Who holds this lease, or held it last."""
        row = self._lease_row(name)
        return record_of(LeaseRecord, row) if row else None

    def _lease_row(self, name: str) -> LeaseRow | None:
        return self._session.scalar(select(LeaseRow).where(LeaseRow.name == name))

    def _now(self) -> datetime:
        """The server's clock where there is one: the clocks of workers differ."""
        if self._session.get_bind().dialect.name == "postgresql":
            now: datetime = self._session.scalars(select(func.clock_timestamp())).one()
            return now.astimezone(UTC)
        return datetime.now(UTC)
