"""Starts: which migration of which pair of bases was started, so that two who see the same need start one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from cross_lora_core.catalog.reading import Reader
from cross_lora_core.catalog.records import StartRecord, record_of
from cross_lora_core.catalog.tables import StartRow
from cross_lora_core.catalog.turns import take_turn

__all__ = ["Starter"]


class Starter(Reader):
    """Starts within one unit of work."""

    def open_start(self, source_id: int, target_id: int) -> StartRecord | None:
        """The start of a pair that has not ended; it is the caller's turn from here, nobody opens another."""
        take_turn(self._session)
        row = self._latest(source_id, target_id)
        return record_of(StartRecord, row) if row and row.ended_at is None else None

    def add_start(self, source_id: int, target_id: int, request: Mapping[str, Any]) -> StartRecord:
        """Open the next start of a pair, with a key of its own."""
        take_turn(self._session)
        before = self._latest(source_id, target_id)
        row = StartRow(
            source_base_id=source_id,
            target_base_id=target_id,
            number=before.number + 1 if before else 1,
            key=uuid.uuid4().hex,
            request=dict(request),
        )
        self._session.add(row)
        self._session.flush()
        return record_of(StartRecord, row)

    def note_start(self, start_id: int, flow_run: str) -> None:
        """Keep which flow run a start became."""
        self._get(StartRow, start_id).flow_run = flow_run

    def end_start(self, start_id: int) -> None:
        """Close a start, so that the pair may have another."""
        row = self._get(StartRow, start_id)
        row.ended_at = row.ended_at or datetime.now(UTC)

    def starts(self) -> list[StartRecord]:
        """Every start, the latest first."""
        return [
            record_of(StartRecord, row) for row in self._all(select(StartRow).order_by(StartRow.id.desc()))
        ]

    def _latest(self, source_id: int, target_id: int) -> StartRow | None:
        pair = (StartRow.source_base_id == source_id, StartRow.target_base_id == target_id)
        return self._session.scalar(select(StartRow).where(*pair).order_by(StartRow.number.desc()).limit(1))
