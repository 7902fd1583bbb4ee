"""The catalog's tables, typed, the same on SQLite and PostgreSQL.

Every table has a natural unique key, so that registering the same thing twice
finds the row that is there.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "AdapterRow",
    "BaseRow",
    "DeliveryRow",
    "EvaluationRow",
    "FactorSetRow",
    "ItemRow",
    "LeaseRow",
    "MeasureRow",
    "MigrationRow",
    "PromotionRow",
    "StartRow",
    "Table",
    "VerdictRow",
]

_NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
_Json = JSON().with_variant(JSONB(), "postgresql")
VERDICTS = (
    "copied",
    "migrated",
    "no_effect",
    "harmful",
    "needs_retraining",
    "unverified",
    "refused",
    "failed",
)
BASE_STATUSES = ("active", "deprecated", "retired")
MIGRATION_STATUSES = ("planned", "running", "finished", "failed")
ITEM_STATUSES = ("planned", "done", "failed", "refused")
DELIVERY_STATES = ("received", "started", "ignored", "failed")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with its zone; SQLite forgets zones, so UTC is written and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """To UTC before it is written."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """With its zone when it is read."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _now() -> datetime:
    return datetime.now(UTC)


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Table(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=_NAMING)
    type_annotation_map: ClassVar = {float: Double}  # SQLAlchemy 2.0 would take Float, 2.1 takes Double

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=_now)


class BaseRow(Table):
    """A base model."""

    __tablename__ = "bases"
    __table_args__ = (UniqueConstraint("name"), _one_of("status", BASE_STATUSES))

    name: Mapped[str] = mapped_column(String(300))
    revision: Mapped[str | None] = mapped_column(String(200))
    digest: Mapped[str] = mapped_column(String(64), index=True)
    location: Mapped[str] = mapped_column(Text)
    family: Mapped[str] = mapped_column(String(60))
    layers: Mapped[int]
    d_model: Mapped[int]
    status: Mapped[str] = mapped_column(String(20), default="active")
    deprecated_on: Mapped[date | None]
    successor_id: Mapped[int | None] = mapped_column(ForeignKey("bases.id"))


class FactorSetRow(Table):
    """Stored factors of one layer group of a base."""

    __tablename__ = "factor_sets"
    __table_args__ = (UniqueConstraint("base_digest", "spec", "first_layer", "last_layer"),)

    base_digest: Mapped[str] = mapped_column(String(64))
    spec: Mapped[str] = mapped_column(String(100))
    group_index: Mapped[int]
    first_layer: Mapped[int]
    last_layer: Mapped[int]
    store_key: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    rank: Mapped[int]
    seconds: Mapped[float | None]


class AdapterRow(Table):
    """An adapter on its base."""

    __tablename__ = "adapters"
    __table_args__ = (UniqueConstraint("name", "digest"),)

    name: Mapped[str] = mapped_column(String(300))
    digest: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str | None] = mapped_column(String(200))
    base_id: Mapped[int] = mapped_column(ForeignKey("bases.id"), index=True)
    location: Mapped[str] = mapped_column(Text)
    origin: Mapped[str] = mapped_column(String(30))
    rank: Mapped[int]
    scaling: Mapped[float | None]
    variant: Mapped[str] = mapped_column(String(30))
    evaluation: Mapped[str | None] = mapped_column(Text)


class MigrationRow(Table):
    """One request to move adapters of a base to others."""

    __tablename__ = "migrations"
    __table_args__ = (UniqueConstraint("request_digest"), _one_of("status", MIGRATION_STATUSES))

    request_digest: Mapped[str] = mapped_column(String(64))
    source_base_id: Mapped[int] = mapped_column(ForeignKey("bases.id"))
    method: Mapped[str] = mapped_column(String(40))
    spec: Mapped[dict[str, Any]] = mapped_column(_Json)
    status: Mapped[str] = mapped_column(String(20), default="planned")
    started_at: Mapped[datetime] = mapped_column(UtcDateTime, default=_now)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    requested_by: Mapped[str | None] = mapped_column(String(200))
    flow_run: Mapped[str | None] = mapped_column(String(100))


class ItemRow(Table):
    """One adapter to one target, within a migration."""

    __tablename__ = "items"
    __table_args__ = (
        UniqueConstraint("migration_id", "adapter_name", "adapter_location", "target_base_id"),
        _one_of("status", ITEM_STATUSES),
        _one_of("verdict", VERDICTS),
    )

    migration_id: Mapped[int] = mapped_column(ForeignKey("migrations.id"), index=True)
    adapter_id: Mapped[int | None] = mapped_column(ForeignKey("adapters.id"), index=True)
    adapter_name: Mapped[str] = mapped_column(String(300))
    adapter_location: Mapped[str] = mapped_column(Text)
    target_base_id: Mapped[int] = mapped_column(ForeignKey("bases.id"), index=True)
    status: Mapped[str] = mapped_column(String(20), default="planned")
    verdict: Mapped[str | None] = mapped_column(String(20))
    method: Mapped[str | None] = mapped_column(String(40))
    reason: Mapped[str] = mapped_column(Text, default="")
    modules_expected: Mapped[int] = mapped_column(default=0)
    modules_landed: Mapped[int] = mapped_column(default=0)
    output: Mapped[str | None] = mapped_column(Text)
    output_sha256: Mapped[str | None] = mapped_column(String(64))
    skipped: Mapped[list[list[str]]] = mapped_column(_Json, default=list)


class MeasureRow(Table):
    """What happened to one module of an item."""

    __tablename__ = "measures"
    __table_args__ = (UniqueConstraint("item_id", "layer", "role"),)

    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    layer: Mapped[int] = mapped_column(Integer)
    role: Mapped[str] = mapped_column(String(10))
    source_layer: Mapped[int]
    source_energy: Mapped[float | None]
    target_energy: Mapped[float | None]
    retained_energy: Mapped[float | None]
    source_norm: Mapped[float | None]
    norm: Mapped[float]
    relative_norm: Mapped[float | None]
    explained: Mapped[float | None]


class EvaluationRow(Table):
    """One measure of one base, with an adapter or none, on one evaluation file, taken in one environment."""

    __tablename__ = "evaluations"
    __table_args__ = (
        UniqueConstraint(
            "base_digest", "adapter_digest", "dataset_digest", "dtype", "environment", "measure"
        ),
    )

    base_digest: Mapped[str] = mapped_column(String(64))
    adapter_digest: Mapped[str] = mapped_column(String(64))
    dataset_digest: Mapped[str] = mapped_column(String(64))
    dtype: Mapped[str] = mapped_column(String(20))
    environment: Mapped[str] = mapped_column(String(200))
    measure: Mapped[str] = mapped_column(String(80))
    rows: Mapped[int]
    mean: Mapped[float]
    by_row: Mapped[list[float]] = mapped_column(_Json)


class VerdictRow(Table):
    """A verdict with its evidence; an item's latest row counts, earlier ones are history."""

    __tablename__ = "verdicts"
    __table_args__ = (UniqueConstraint("item_id", "evidence_digest"), _one_of("verdict", VERDICTS))

    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    verdict: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text)
    evidence: Mapped[dict[str, Any]] = mapped_column(_Json)
    evidence_digest: Mapped[str] = mapped_column(String(64))


class PromotionRow(Table):
    """Who moved the alias of an adapter on a target to which item, and why; the latest row is current."""

    __tablename__ = "promotions"
    __table_args__ = (_one_of("action", ("promote", "rollback")),)

    target_base_id: Mapped[int] = mapped_column(ForeignKey("bases.id"), index=True)
    adapter_name: Mapped[str] = mapped_column(String(300), index=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    previous_item_id: Mapped[int | None] = mapped_column(ForeignKey("items.id"))
    action: Mapped[str] = mapped_column(String(20))
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)


class LeaseRow(Table):
    """Who computes a shared result now; free again when it expires or its row is gone."""

    __tablename__ = "leases"
    __table_args__ = (UniqueConstraint("name"),)

    name: Mapped[str] = mapped_column(String(1000))
    holder: Mapped[str] = mapped_column(String(300))
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class StartRow(Table):
    """One time that adapters of a deprecated base were sent to its successor; a pair has one open at most."""

    __tablename__ = "starts"
    __table_args__ = (UniqueConstraint("source_base_id", "target_base_id", "number"),)

    source_base_id: Mapped[int] = mapped_column(ForeignKey("bases.id"))
    target_base_id: Mapped[int] = mapped_column(ForeignKey("bases.id"))
    number: Mapped[int]
    key: Mapped[str] = mapped_column(String(64))
    request: Mapped[dict[str, Any]] = mapped_column(_Json)
    flow_run: Mapped[str | None] = mapped_column(String(100))
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class DeliveryRow(Table):
    """One webhook delivery of a registry, and how far what it asks for has come."""

    __tablename__ = "deliveries"
    __table_args__ = (UniqueConstraint("sender", "delivery"), _one_of("state", DELIVERY_STATES))

    sender: Mapped[str] = mapped_column(String(20))
    delivery: Mapped[str] = mapped_column(String(200))
    summary: Mapped[str] = mapped_column(Text)
    base_name: Mapped[str | None] = mapped_column(String(300))
    successor_name: Mapped[str | None] = mapped_column(String(300))
    state: Mapped[str] = mapped_column(String(20), index=True)
    reason: Mapped[str] = mapped_column(Text, default="")
    flow_run: Mapped[str | None] = mapped_column(String(100))
