"""Changes to the catalog, each safe to repeat: what is there already is found, not doubled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from cross_lora_core.catalog.leasing import Leaser
from cross_lora_core.catalog.promoting import Promoter
from cross_lora_core.catalog.reading import RowT
from cross_lora_core.catalog.receiving import Receiver
from cross_lora_core.catalog.records import AdapterRecord, BaseRecord, ItemRecord, record_of
from cross_lora_core.catalog.starting import Starter
from cross_lora_core.catalog.tables import (
    AdapterRow,
    BaseRow,
    EvaluationRow,
    FactorSetRow,
    ItemRow,
    MeasureRow,
    MigrationRow,
    Table,
    VerdictRow,
)
from cross_lora_core.catalog.turns import take_turn
from cross_lora_core.catalog.values import check_values, json_safe
from cross_lora_core.errors import RecordConflict

__all__ = ["Work"]


class Work(Promoter, Leaser, Starter, Receiver):
    """One unit of work: queries and changes that become visible together."""

    def add_base(
        self,
        *,
        name: str,
        digest: str,
        location: str,
        family: str,
        layers: int,
        d_model: int,
        revision: str | None = None,
    ) -> BaseRecord:
        """Register a base; the same content under the same name is found, a new location is noted.

        Raises:
            RecordConflict: the name belongs to other content.
        """
        values = {"digest": digest, "revision": revision, "location": location, "family": family}
        row = self._insert_or_find(BaseRow, {"name": name}, values | {"layers": layers, "d_model": d_model})
        if row.digest != digest:
            raise RecordConflict(
                f"base {name!r} with digest {row.digest[:12]}, as it was registered",
                f"digest {digest[:12]}",
                location,
                "A base never changes under its name: register this one with another --name.",
            )
        row.location = location
        return record_of(BaseRecord, row)

    def deprecate_base(self, name: str, *, on: date | None, successor: str | None) -> BaseRecord:
        """Mark a base as deprecated, with its date and successor.

        Raises:
            RecordNotFound: one of the two is not registered.
            RecordConflict: it would be its own successor.
        """
        row = self._base_row(name)
        if successor == name:
            remedy = "Name the base that its adapters shall move to."
            raise RecordConflict("another base as successor", "the same one", f"base {name!r}", remedy)
        row.status, row.deprecated_on = "deprecated", on
        if successor is not None:
            row.successor_id = self._base_row(successor).id
        self._session.flush()
        return record_of(BaseRecord, row)

    def add_adapter(
        self,
        *,
        name: str,
        digest: str,
        base_id: int,
        location: str,
        origin: str,
        rank: int,
        scaling: float | None,
        variant: str,
        owner: str | None = None,
        evaluation: str | None = None,
    ) -> AdapterRecord:
        """Register an adapter; registering one that ran ad hoc before makes it registered.

        Raises:
            RecordConflict: the same adapter is registered on another base.
        """
        values = {
            "base_id": base_id,
            "location": location,
            "origin": origin,
            "rank": rank,
            "scaling": scaling,
        }
        values |= {"variant": variant, "owner": owner, "evaluation": evaluation}
        row = self._insert_or_find(AdapterRow, {"name": name, "digest": digest}, values)
        if row.base_id != base_id:
            raise RecordConflict(
                f"adapter {name!r} on base {self.base(row.base_id).name!r}, as it was registered",
                f"base {self.base(base_id).name!r}",
                location,
                "Give the base it was registered on, or another --name.",
            )
        row.location = location
        row.origin = "registered" if origin == "registered" else row.origin
        row.owner, row.evaluation = owner or row.owner, evaluation or row.evaluation
        self._session.flush()
        return record_of(AdapterRecord, row)

    def add_factor_set(self, **values: Any) -> None:
        """Register stored factors; columns as in `FactorSetRecord`. A time unknown so far is filled in."""
        key = {name: values.pop(name) for name in ("base_digest", "spec", "first_layer", "last_layer")}
        row = self._insert_or_find(FactorSetRow, key, values)
        if row.seconds is None:
            row.seconds = values["seconds"]

    def begin_migration(
        self,
        *,
        request_digest: str,
        source_base_id: int,
        method: str,
        spec: Mapping[str, Any],
        requested_by: str | None,
        flow_run: str | None,
    ) -> int:
        """Start a migration, or find the one with the same request; returns its id."""
        values = {"source_base_id": source_base_id, "method": method, "spec": dict(spec)}
        row = self._insert_or_find(
            MigrationRow, {"request_digest": request_digest}, values | {"requested_by": requested_by}
        )
        row.status, row.flow_run, row.started_at = "running", flow_run, datetime.now(UTC)
        row.finished_at = None
        return row.id

    def finish_migration(self, migration_id: int, status: str) -> None:
        """Note that a migration ended, as `finished` or `failed`."""
        row = self._get(MigrationRow, migration_id)
        row.status, row.finished_at = status, datetime.now(UTC)

    def add_item(
        self,
        *,
        migration_id: int,
        adapter_id: int | None,
        adapter_name: str,
        adapter_location: str,
        target_base_id: int,
        modules_expected: int,
        skipped: Sequence[tuple[str, str]],
    ) -> ItemRecord:
        """Plan an item, or find it with whatever became of it."""
        key = {
            "migration_id": migration_id,
            "adapter_name": adapter_name,
            "adapter_location": adapter_location,
            "target_base_id": target_base_id,
        }
        values = {"adapter_id": adapter_id, "modules_expected": modules_expected}
        row = self._insert_or_find(ItemRow, key, values | {"skipped": [list(one) for one in skipped]})
        return record_of(ItemRecord, row)

    def settle_item(
        self,
        item_id: int,
        *,
        status: str,
        verdict: str,
        reason: str,
        evidence: Mapping[str, Any],
        modules_landed: int = 0,
        output: str | None = None,
        output_sha256: str | None = None,
        method: str | None = None,
        modules_expected: int | None = None,
        skipped: Sequence[tuple[str, str]] | None = None,
    ) -> None:
        """Record what became of an item, and its verdict with the evidence.

        Modules expected and skipped stay as planned where the method that was chosen does not say otherwise.
        """
        row = self._get(ItemRow, item_id)
        row.status, row.verdict, row.reason = status, verdict, reason
        row.modules_landed, row.output, row.output_sha256 = modules_landed, output, output_sha256
        row.method = method
        if modules_expected is not None:
            row.modules_expected = modules_expected
        if skipped is not None:
            row.skipped = [list(one) for one in skipped]
        self._add_verdict(item_id, verdict, reason, json_safe(evidence))

    def _add_verdict(self, item_id: int, verdict: str, reason: str, evidence: Mapping[str, Any]) -> None:
        """The same verdict again is the one that is there; it becomes the latest once more."""
        text = json.dumps([verdict, reason, evidence], sort_keys=True)
        key = {"item_id": item_id, "evidence_digest": hashlib.sha256(text.encode()).hexdigest()}
        values = {"verdict": verdict, "reason": reason, "evidence": evidence}
        row = self._insert_or_find(VerdictRow, key, values)
        latest = self._verdict_row(item_id)
        if latest is not None and latest is not row:
            row.created_at = max(datetime.now(UTC), latest.created_at + timedelta(microseconds=1))
            self._session.flush()

    def add_measures(self, item_id: int, measures: Sequence[Mapping[str, Any]]) -> None:
        """Record per-module measures; columns as in `MeasureRecord`. A module's first ones stand."""
        known = {(one.layer, one.role) for one in self.measures_of(item_id)}
        rows = [{"item_id": item_id, **one, "role": str(one["role"])} for one in measures]
        new = [row for row in rows if (row["layer"], row["role"]) not in known]
        for row in new:
            check_values(Table.metadata.tables[MeasureRow.__tablename__], row)
        if new:
            take_turn(self._session)
            statement = self._insert(MeasureRow).on_conflict_do_nothing(
                index_elements=["item_id", "layer", "role"]
            )
            self._session.connection().execute(statement, new)

    def add_evaluation(
        self,
        base_digest: str,
        adapter_digest: str,
        dataset_digest: str,
        dtype: str,
        environment: str,
        measure: str,
        by_row: Sequence[float],
    ) -> None:
        """Record what was measured of each row."""
        key = {
            "base_digest": base_digest,
            "adapter_digest": adapter_digest,
            "dataset_digest": dataset_digest,
            "dtype": dtype,
            "environment": environment,
            "measure": measure,
        }
        mean = sum(by_row) / len(by_row)
        self._insert_or_find(EvaluationRow, key, {"rows": len(by_row), "mean": mean, "by_row": list(by_row)})

    def _insert_or_find(self, kind: type[RowT], key: Mapping[str, Any], values: Mapping[str, Any]) -> RowT:
        """Insert a row unless its natural key is taken; then return the row that is there."""
        chosen = select(kind).where(*(getattr(kind, name) == value for name, value in key.items()))
        row = self._session.scalar(chosen)
        if row is None:
            check_values(Table.metadata.tables[kind.__tablename__], {**key, **values})
            take_turn(self._session)
            statement = self._insert(kind).values(**key, **values)
            self._session.execute(statement.on_conflict_do_nothing(index_elements=list(key)))
            row = self._session.scalars(chosen).one()
        return row

    def _insert(self, kind: type[RowT]) -> Any:
        dialect = postgresql if self._session.get_bind().dialect.name == "postgresql" else sqlite
        return dialect.insert(kind)
