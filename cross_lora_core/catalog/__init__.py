"""What was registered, migrated, measured and promoted: rows in SQLite or PostgreSQL.

    catalog = Catalog.open("sqlite:///catalog.db")
    with catalog.begin() as work:            # all or nothing
        base = work.add_base(...)
        work.adapters_on(base.id)

Records that come out are frozen values. Schema versions are Alembic's.
"""

from cross_lora_core.catalog.opening import Catalog, unchecked
from cross_lora_core.catalog.records import (
    AdapterRecord,
    BaseRecord,
    DeliveryRecord,
    EvaluationRecord,
    FactorSetRecord,
    ItemRecord,
    LeaseRecord,
    MeasureRecord,
    MigrationRecord,
    PromotionRecord,
    StartRecord,
    VerdictRecord,
)
from cross_lora_core.catalog.work import Work

__all__ = [
    "AdapterRecord",
    "BaseRecord",
    "Catalog",
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
    "Work",
    "unchecked",
]
