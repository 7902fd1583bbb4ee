"""Webhook deliveries: each is a row before anything follows from it, and stays one until all has."""

from __future__ import annotations

from sqlalchemy import select

from cross_lora_core.catalog.reading import Reader
from cross_lora_core.catalog.records import DeliveryRecord, record_of
from cross_lora_core.catalog.tables import DeliveryRow, Table
from cross_lora_core.catalog.turns import take_turn
from cross_lora_core.catalog.values import check_values

__all__ = ["Receiver"]


class Receiver(Reader):
    """Deliveries within one unit of work."""

    def receive(
        self, *, sender: str, delivery: str, summary: str, base: str | None, successor: str | None
    ) -> tuple[DeliveryRecord, bool]:
        """Keep a delivery that came, the first time or again.

        One that failed or was ignored before is taken up again, because the configuration may have
        changed since.

        Args:
            sender: which registry.
            delivery: what makes it unique there.
            summary: the event in words.
            base: name of the base it deprecates; None if it means nothing to us.
            successor: name of that base's successor, if the configuration names one.

        Returns:
            The delivery, and whether it was done with before.
        """
        take_turn(self._session)
        row = self._delivery_row(sender, delivery)
        if row is not None and row.state in ("received", "started"):
            return record_of(DeliveryRecord, row), row.state == "started"
        if row is None:
            row = DeliveryRow(sender=sender, delivery=delivery)
            self._session.add(row)
        row.summary, row.base_name, row.successor_name = summary, base, successor
        row.state, row.reason = ("received", "") if base else ("ignored", "no rule is about this event")
        values = {name: getattr(row, name) for name in ("sender", "delivery", "base_name", "successor_name")}
        check_values(Table.metadata.tables[DeliveryRow.__tablename__], values)
        self._session.flush()
        return record_of(DeliveryRecord, row), False

    def settle_delivery(
        self, delivery_id: int, *, state: str, reason: str = "", flow_run: str | None = None
    ) -> None:
        """Note what became of a delivery; `received` means that it has to be tried again."""
        row = self._get(DeliveryRow, delivery_id)
        row.state, row.reason, row.flow_run = state, reason, flow_run

    def unfinished_deliveries(self, *, failed: bool = False) -> list[DeliveryRecord]:
        """Deliveries from which something has still to follow, the oldest first.

        Args:
            failed: also those that failed.
        """
        states = ("received", "failed") if failed else ("received",)
        chosen = select(DeliveryRow).where(DeliveryRow.state.in_(states)).order_by(DeliveryRow.id)
        return [record_of(DeliveryRecord, row) for row in self._all(chosen)]

    def deliveries(self) -> list[DeliveryRecord]:
        """Every delivery, the latest first."""
        rows = self._all(select(DeliveryRow).order_by(DeliveryRow.id.desc()))
        return [record_of(DeliveryRecord, row) for row in rows]

    def _delivery_row(self, sender: str, delivery: str) -> DeliveryRow | None:
        same = (DeliveryRow.sender == sender, DeliveryRow.delivery == delivery)
        return self._session.scalar(select(DeliveryRow).where(*same))
