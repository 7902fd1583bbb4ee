"""What catalog queries return: frozen values, never live rows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any, TypeVar

from cross_lora_core.catalog.tables import Table

__all__ = [
    "AdapterRecord",
    "BaseRecord",
    "DeliveryRecord",
    "EvaluationRecord",
    "FactorSetRecord",
    "ItemRecord",
    "LeaseRecord",
    "MeasureRecord",
    "MigrationRecord",
    "PromotionRecord",
    "StartRecord",
    "VerdictRecord",
    "record_of",
]

_Record = TypeVar("_Record")


@dataclass(frozen=True)
class BaseRecord:
    """A base model; `status` is active, deprecated or retired."""

    id: int
    name: str
    revision: str | None
    digest: str
    location: str
    family: str
    layers: int
    d_model: int
    status: str
    deprecated_on: date | None
    successor_id: int | None
    created_at: datetime


@dataclass(frozen=True)
class FactorSetRecord:
    """Stored factors of layers `first_layer`..`last_layer` of a base.

    `seconds` is None where whoever computed them was stopped before it noted its time.
    """

    base_digest: str
    spec: str
    group_index: int
    first_layer: int
    last_layer: int
    store_key: str
    sha256: str
    size_bytes: int
    rank: int
    seconds: float | None


@dataclass(frozen=True)
class AdapterRecord:
    """An adapter on its base; `origin` is registered, ad hoc or migrated."""

    id: int
    name: str
    digest: str
    owner: str | None
    base_id: int
    location: str
    origin: str
    rank: int
    scaling: float | None
    variant: str
    evaluation: str | None
    created_at: datetime


@dataclass(frozen=True)
class MigrationRecord:
    """A migration; `status` is planned, running, finished or failed."""

    id: int
    request_digest: str
    source_base_id: int
    method: str
    spec: dict[str, Any]
    status: str
    started_at: datetime
    finished_at: datetime | None
    requested_by: str | None
    flow_run: str | None


@dataclass(frozen=True)
class ItemRecord:
    """One adapter to one target; `status` is planned, done, failed or refused.

    `method` made the output, and is None where nothing was made.
    """

    id: int
    migration_id: int
    adapter_id: int | None
    adapter_name: str
    adapter_location: str
    target_base_id: int
    status: str
    verdict: str | None
    method: str | None
    reason: str
    modules_expected: int
    modules_landed: int
    output: str | None
    output_sha256: str | None
    skipped: list[list[str]]


@dataclass(frozen=True)
class MeasureRecord:
    """What happened to one module of an item."""

    layer: int
    role: str
    source_layer: int
    source_energy: float | None
    target_energy: float | None
    retained_energy: float | None
    source_norm: float | None
    norm: float
    relative_norm: float | None
    explained: float | None = None


@dataclass(frozen=True)
class EvaluationRecord:
    """What was measured of each row: losses in nats per character, or hits.

    Attributes:
        adapter_digest: empty for the base alone.
        environment: what measured them; empty for those of before it was kept.
        measure: what the numbers are, such as `loss`.
        by_row: one number per row.
    """

    base_digest: str
    adapter_digest: str
    dataset_digest: str
    dtype: str
    environment: str
    measure: str
    rows: int
    mean: float
    by_row: list[float]


@dataclass(frozen=True)
class VerdictRecord:
    """A verdict with its evidence."""

    id: int
    item_id: int
    verdict: str
    reason: str
    evidence: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class PromotionRecord:
    """One move of an adapter's alias on a target."""

    id: int
    target_base_id: int
    adapter_name: str
    item_id: int
    previous_item_id: int | None
    action: str
    actor: str
    reason: str
    created_at: datetime


@dataclass(frozen=True)
class LeaseRecord:
    """Who computes a shared result, and until when."""

    name: str
    holder: str
    expires_at: datetime


@dataclass(frozen=True)
class StartRecord:
    """One time that adapters of a deprecated base were sent to its successor.

    Attributes:
        number: counts the starts of this pair of bases.
        key: idempotency key of the flow run.
        request: the migration request, as JSON.
        flow_run: Prefect's id, None until it is known.
        ended_at: None while it is open.
    """

    id: int
    source_base_id: int
    target_base_id: int
    number: int
    key: str
    request: dict[str, Any]
    flow_run: str | None
    ended_at: datetime | None


@dataclass(frozen=True)
class DeliveryRecord:
    """One webhook delivery; `state` is received, started, ignored or failed.

    `base_name` is None where the configuration maps the event to nothing.
    """

    id: int
    sender: str
    delivery: str
    summary: str
    base_name: str | None
    successor_name: str | None
    state: str
    reason: str
    flow_run: str | None
    created_at: datetime


def record_of(kind: type[_Record], row: Table) -> _Record:
    """A row's columns as a record of the given kind."""
    return kind(**{field.name: getattr(row, field.name) for field in fields(kind)})  # type: ignore[arg-type]
