"""Questions the catalog answers, named after the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, TypeVar

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from cross_lora_core.catalog.records import (
    AdapterRecord,
    BaseRecord,
    EvaluationRecord,
    FactorSetRecord,
    ItemRecord,
    MeasureRecord,
    MigrationRecord,
    PromotionRecord,
    VerdictRecord,
    record_of,
)
from cross_lora_core.catalog.tables import (
    AdapterRow,
    BaseRow,
    EvaluationRow,
    FactorSetRow,
    ItemRow,
    MeasureRow,
    MigrationRow,
    PromotionRow,
    Table,
    VerdictRow,
)
from cross_lora_core.errors import RecordNotFound

__all__ = ["Reader"]

PROMOTABLE = ("copied", "migrated")
RowT = TypeVar("RowT", bound=Table)


class Reader:
    """Queries within one unit of work."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # bases

    def bases(self) -> list[BaseRecord]:
        """Every base, by name."""
        return [record_of(BaseRecord, row) for row in self._all(select(BaseRow).order_by(BaseRow.name))]

    def base(self, base_id: int) -> BaseRecord:
        """The base with this id.

        Raises:
            RecordNotFound: there is none.
        """
        return record_of(BaseRecord, self._get(BaseRow, base_id))

    def base_named(self, name: str) -> BaseRecord | None:
        """The base of this name."""
        row = self._session.scalar(select(BaseRow).where(BaseRow.name == name))
        return record_of(BaseRecord, row) if row else None

    def registered_base(self, name: str) -> BaseRecord:
        """The base of this name, where there has to be one.

        Raises:
            RecordNotFound: there is none.
        """
        return record_of(BaseRecord, self._base_row(name))

    def base_with_digest(self, digest: str) -> BaseRecord | None:
        """The first base registered with this content."""
        row = self._session.scalar(select(BaseRow).where(BaseRow.digest == digest).order_by(BaseRow.id))
        return record_of(BaseRecord, row) if row else None

    def bases_due(self, today: date) -> list[BaseRecord]:
        """Deprecated bases with a successor whose date has come, or that have no date."""
        due = (BaseRow.deprecated_on.is_(None)) | (BaseRow.deprecated_on <= today)
        chosen = select(BaseRow).where(BaseRow.status == "deprecated", BaseRow.successor_id.is_not(None), due)
        return [record_of(BaseRecord, row) for row in self._all(chosen.order_by(BaseRow.name))]

    def factor_sets_of(self, base_digest: str) -> list[FactorSetRecord]:
        """Stored factors of a base, in layer order."""
        chosen = select(FactorSetRow).where(FactorSetRow.base_digest == base_digest)
        rows = self._all(chosen.order_by(FactorSetRow.spec, FactorSetRow.first_layer))
        return [record_of(FactorSetRecord, row) for row in rows]

    # adapters

    def adapters_on(self, base_id: int) -> list[AdapterRecord]:
        """Which adapters die with this base: the registered ones, the newest of each name."""
        chosen = select(AdapterRow).where(AdapterRow.base_id == base_id, AdapterRow.origin == "registered")
        newest = {row.name: row for row in self._all(chosen.order_by(AdapterRow.id))}
        return [record_of(AdapterRecord, newest[name]) for name in sorted(newest)]

    def adapters(self) -> list[AdapterRecord]:
        """Every adapter, by name and age."""
        rows = self._all(select(AdapterRow).order_by(AdapterRow.name, AdapterRow.id))
        return [record_of(AdapterRecord, row) for row in rows]

    def adapter_named(self, name: str, base_id: int) -> AdapterRecord | None:
        """The newest adapter of this name on a base."""
        chosen = select(AdapterRow).where(AdapterRow.name == name, AdapterRow.base_id == base_id)
        row = self._session.scalar(chosen.order_by(AdapterRow.id.desc()).limit(1))
        return record_of(AdapterRecord, row) if row else None

    def unmigrated_adapters(self, base_id: int, target_id: int) -> list[AdapterRecord]:
        """Adapters on a base that have no promotable result on a target."""
        done = select(ItemRow.adapter_id).where(
            ItemRow.target_base_id == target_id, ItemRow.verdict.in_(PROMOTABLE)
        )
        moved = set(self._session.scalars(done))
        return [one for one in self.adapters_on(base_id) if one.id not in moved]

    def unsettled_adapters(
        self, base_id: int, target_id: int, spec: Mapping[str, Any]
    ) -> list[AdapterRecord]:
        """Adapters on a base that somebody still has to move to a target.

        Settled is what was done or refused with this spec, whatever the verdict, and what has a
        promotable result of any spec. Failed and new adapters are left.

        Args:
            base_id: of the base they are on.
            target_id: of its successor.
            spec: as migrations keep it.
        """
        tried = select(ItemRow.adapter_id, MigrationRow.spec).join(
            MigrationRow, ItemRow.migration_id == MigrationRow.id
        )
        settled = tried.where(ItemRow.target_base_id == target_id, ItemRow.status.in_(("done", "refused")))
        found = {adapter for adapter, used in self._session.execute(settled) if used == dict(spec)}
        return [one for one in self.unmigrated_adapters(base_id, target_id) if one.id not in found]

    # migrations

    def migration(self, migration_id: int) -> MigrationRecord:
        """The migration with this id.

        Raises:
            RecordNotFound: there is none.
        """
        return record_of(MigrationRecord, self._get(MigrationRow, migration_id))

    def migration_by_request(self, request_digest: str) -> MigrationRecord | None:
        """The migration that this request started."""
        chosen = select(MigrationRow).where(MigrationRow.request_digest == request_digest)
        row = self._session.scalar(chosen)
        return record_of(MigrationRecord, row) if row else None

    def migrations(self) -> list[MigrationRecord]:
        """Every migration, the latest first."""
        rows = self._all(select(MigrationRow).order_by(MigrationRow.id.desc()))
        return [record_of(MigrationRecord, row) for row in rows]

    def latest_migration(self) -> MigrationRecord | None:
        """The migration that was started last."""
        order = (MigrationRow.started_at.desc(), MigrationRow.id.desc())
        row = self._session.scalar(select(MigrationRow).order_by(*order).limit(1))
        return record_of(MigrationRecord, row) if row else None

    def items_of(self, migration_id: int) -> list[ItemRecord]:
        """The items of a migration, in the order they were planned."""
        chosen = select(ItemRow).where(ItemRow.migration_id == migration_id).order_by(ItemRow.id)
        return [record_of(ItemRecord, row) for row in self._all(chosen)]

    def item(self, item_id: int) -> ItemRecord:
        """The item with this id.

        Raises:
            RecordNotFound: there is none.
        """
        return record_of(ItemRecord, self._get(ItemRow, item_id))

    def results_of(self, adapter_name: str, target_id: int) -> list[ItemRecord]:
        """Everything that was made of an adapter for a target, the latest first."""
        chosen = select(ItemRow).where(
            ItemRow.adapter_name == adapter_name,
            ItemRow.target_base_id == target_id,
            ItemRow.status == "done",
        )
        return [record_of(ItemRecord, row) for row in self._all(chosen.order_by(ItemRow.id.desc()))]

    def measures_of(self, item_id: int) -> list[MeasureRecord]:
        """Per-module measures of an item."""
        chosen = select(MeasureRow).where(MeasureRow.item_id == item_id)
        rows = self._all(chosen.order_by(MeasureRow.layer, MeasureRow.role))
        return [record_of(MeasureRecord, row) for row in rows]

    def verdict_of(self, item_id: int) -> VerdictRecord | None:
        """The verdict on an item that was reached last, with its evidence."""
        row = self._verdict_row(item_id)
        return record_of(VerdictRecord, row) if row else None

    def _verdict_row(self, item_id: int) -> VerdictRow | None:
        chosen = select(VerdictRow).where(VerdictRow.item_id == item_id)
        order = (VerdictRow.created_at.desc(), VerdictRow.id.desc())
        return self._session.scalar(chosen.order_by(*order).limit(1))

    def evaluation(
        self,
        base_digest: str,
        adapter_digest: str,
        dataset_digest: str,
        dtype: str,
        environment: str,
        measure: str,
    ) -> EvaluationRecord | None:
        """What was measured before, in the same environment."""
        row = self._session.scalar(
            select(EvaluationRow).where(
                EvaluationRow.base_digest == base_digest,
                EvaluationRow.adapter_digest == adapter_digest,
                EvaluationRow.dataset_digest == dataset_digest,
                EvaluationRow.dtype == dtype,
                EvaluationRow.environment == environment,
                EvaluationRow.measure == measure,
            )
        )
        return record_of(EvaluationRecord, row) if row else None

    # promotions

    def current_promotion(self, target_id: int, adapter_name: str) -> PromotionRecord | None:
        """Where the alias of an adapter on a target points now."""
        return next(iter(self.history_of(target_id, adapter_name)), None)

    def current_promotions(self) -> list[PromotionRecord]:
        """Where every alias points now, by target and adapter."""
        latest = select(func.max(PromotionRow.id)).group_by(
            PromotionRow.target_base_id, PromotionRow.adapter_name
        )
        chosen = select(PromotionRow).where(PromotionRow.id.in_(latest))
        order = (PromotionRow.target_base_id, PromotionRow.adapter_name)
        return [record_of(PromotionRecord, row) for row in self._all(chosen.order_by(*order))]

    def history_of(self, target_id: int, adapter_name: str) -> list[PromotionRecord]:
        """Every move of an alias, the latest first."""
        chosen = select(PromotionRow).where(
            PromotionRow.target_base_id == target_id, PromotionRow.adapter_name == adapter_name
        )
        return [record_of(PromotionRecord, row) for row in self._all(chosen.order_by(PromotionRow.id.desc()))]

    def _base_row(self, name: str) -> BaseRow:
        row = self._session.scalar(select(BaseRow).where(BaseRow.name == name))
        if row is None:
            remedy = "Register it with `cross-lora base add`; `cross-lora base list` shows what there is."
            raise RecordNotFound("a registered base", f"no base named {name!r}", "the catalog", remedy)
        return row

    def _all(self, statement: Select[tuple[RowT]]) -> Sequence[RowT]:
        return self._session.scalars(statement).all()

    def _get(self, kind: type[RowT], row_id: int) -> RowT:
        row = self._session.get(kind, row_id)
        if row is None:
            table = kind.__tablename__
            raise RecordNotFound(
                f"a row in {table}",
                f"no id {row_id}",
                "the catalog",
                "List what there is with `cross-lora status`.",
            )
        return row
