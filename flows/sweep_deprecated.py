"""Sweep: which bases are deprecated and due, and still carry adapters? Start one migration each."""

from __future__ import annotations

from prefect import flow, get_run_logger, task

from cross_lora_core.registry import RegistryConfig, load_config
from cross_lora_core.settings import load_settings
from flows.deliveries import act_upon
from flows.starting import Started, start_pair
from tasks.deprecate_bases import poll_registry
from tasks.due_migrations import due_pairs
from tasks.move_alias import settle_aliases
from tasks.receive_delivery import unfinished_deliveries
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
def finish_deliveries(config: RegistryConfig) -> dict[str, str]:
    """Do what deliveries asked for whose receiver died before it was done; says what became of each."""
    return {one.delivery: act_upon(one, config) for one in unfinished_deliveries()}
