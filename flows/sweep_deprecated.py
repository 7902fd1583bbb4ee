"""Sweep: which bases are deprecated and due, and still carry adapters? Start one migration each."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, task

from cross_lora_core.errors import CrossLoraError, FinalError
from cross_lora_core.registry import RegistryConfig, load_config
from cross_lora_core.settings import load_settings
from flows.starting import Started, start_pair, start_source
from tasks.deprecate_bases import poll_registry
from tasks.due_migrations import due_pairs
from tasks.move_alias import settle_aliases
from tasks.receive_delivery import apply_delivery, settle_delivery, unfinished_deliveries
from tasks.runtime import TASK_OPTIONS

__all__ = ["finish_deliveries", "sweep_deprecated"]

REQUESTER = "sweep"


@flow(name="sweep-deprecated", flow_run_name="sweep deprecated bases")
def sweep_deprecated() -> list[Started]:
    """Start the migrations that are due, and mend what was left half done.

    Asks MLflow what its webhooks may have missed, acts upon webhook deliveries whose receiver died, writes
    alias pointers that differ from the catalog, and starts one migration per deprecated base that has a
    successor, whose date has come and that still carries adapters. A second sweep meanwhile starts nothing
    twice.
    """
    config = load_config(load_settings().webhook_config)
    logger = get_run_logger()
    for base in poll_registry(config):
        logger.info("%s: the registry says it is deprecated", base)
    finish_deliveries(config)
    for pointer in settle_aliases():
        logger.warning("%s: the pointer differed from the catalog and was written anew", pointer)
    started = [start_pair(pair, config.migration, REQUESTER) for pair in due_pairs(config.migration)]
    for one in started:
        logger.info("%s → %s: %s, %d adapters", one.source, one.target, one.state, len(one.adapters))
    return started


@task(name="finish deliveries", **TASK_OPTIONS)
def finish_deliveries(config: RegistryConfig) -> list[dict[str, Any]]:
    """Do what webhook deliveries asked for whose receiver died before it was done."""
    finished = []
    for delivery in unfinished_deliveries():
        try:
            base = apply_delivery(delivery)
            started = start_source(base, config.migration, f"webhook {delivery.sender}")
            settle_delivery(delivery, "started", started.state, started.flow_run)
            finished.append({"delivery": delivery.delivery, "state": started.state})
        except FinalError as error:
            settle_delivery(delivery, "failed", str(error))
            finished.append({"delivery": delivery.delivery, "state": "failed"})
        except CrossLoraError as error:
            get_run_logger().warning("delivery %s waits for the next sweep: %s", delivery.delivery, error)
    return finished
