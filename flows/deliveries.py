"""What follows from a kept webhook delivery: a deprecated base, and its migration started."""

from __future__ import annotations

import logging

from cross_lora_core.catalog import DeliveryRecord
from cross_lora_core.errors import FinalError
from cross_lora_core.registry import RegistryConfig
from flows.starting import start_source
from tasks.receive_delivery import apply_delivery, settle_delivery

__all__ = ["act_upon"]

_log = logging.getLogger("cross_lora.deliveries")


def act_upon(delivery: DeliveryRecord, config: RegistryConfig) -> str:
    """Do what a delivery asks for, and note it; safe to repeat, and by several at once.

    Returns:
        `started`; `failed`, where somebody has to change something first; `received`, where it has to be
        tried again, which the next sweep does.
    """
    try:
        started = start_source(
            apply_delivery(delivery), config.migration, requested_by=f"webhook {delivery.sender}"
        )
        settle_delivery(delivery, "started", started.state, started.flow_run)
    except FinalError as error:
        _log.error("%s %s failed: %s", delivery.sender, delivery.summary, error)
        settle_delivery(delivery, "failed", str(error))
        return "failed"
    except Exception:
        _log.exception("%s %s waits for the next sweep", delivery.sender, delivery.summary)
        return "received"
    _log.info("%s %s: %s", delivery.sender, delivery.summary, started.state)
    return "started"
