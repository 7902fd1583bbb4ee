"""A webhook delivery, from its row in the catalog to the deprecated base that follows from it."""

from __future__ import annotations

from cross_lora_core.catalog import DeliveryRecord
from cross_lora_core.registry import Deprecation, ModelEvent, RegistryConfig
from tasks.deprecate_bases import mark_deprecated
from tasks.runtime import open_catalog

__all__ = ["apply_delivery", "keep_delivery", "settle_delivery", "unfinished_deliveries"]


def keep_delivery(event: ModelEvent, delivery: str, config: RegistryConfig) -> tuple[DeliveryRecord, bool]:
    """Make the delivery's row before anything follows from it; also says whether it was done with before."""
    meant = config.deprecation_by(event) or Deprecation("", None)
    with open_catalog().begin() as work:
        return work.receive(
            sender=event.sender,
            delivery=delivery,
            summary=event.summary,
            base=meant.base or None,
            successor=meant.successor,
        )


def apply_delivery(delivery: DeliveryRecord) -> str:
    """Deprecate the base that a delivery is about; returns its name.

    Raises:
        RecordNotFound: the catalog has no such base or successor.
    """
    base = delivery.base_name or ""
    mark_deprecated(Deprecation(base, delivery.successor_name))
    return base


def settle_delivery(
    delivery: DeliveryRecord, state: str, reason: str = "", flow_run: str | None = None
) -> None:
    """Note what became of a delivery."""
    with open_catalog().begin() as work:
        work.settle_delivery(delivery.id, state=state, reason=reason, flow_run=flow_run)


def unfinished_deliveries(*, failed: bool = False) -> list[DeliveryRecord]:
    """Deliveries that were kept but not acted upon, because a process died or Prefect did not answer.

    Args:
        failed: also those that could not be acted upon before somebody changed something.
    """
    with open_catalog().begin() as work:
        return work.unfinished_deliveries(failed=failed)
