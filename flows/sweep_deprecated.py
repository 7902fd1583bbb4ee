"""Sweep: which bases are deprecated and due, and still carry adapters? Start one migration each."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Failed

from cross_lora_core.errors import CrossLoraError
from cross_lora_core.migration import TransferOptions
from cross_lora_core.registry import RegistryConfig, load_config
from cross_lora_core.settings import load_settings
from flows.deliveries import act_upon
from flows.outages import is_outage
from flows.starting import Started, start_pair
from tasks.deprecate_bases import poll_registry
from tasks.due_migrations import DuePair, due_pairs
from tasks.move_alias import settle_aliases
from tasks.receive_delivery import unfinished_deliveries
from tasks.runtime import TASK_OPTIONS

__all__ = ["finish_deliveries", "sweep_deprecated"]

REQUESTER = "sweep"


@flow(name="sweep-deprecated", flow_run_name="sweep deprecated bases")
def sweep_deprecated() -> list[Started] | State[list[Started]]:
    """Start the migrations that are due, and mend what was left half done.

    Asks MLflow what its webhooks may have missed, acts upon webhook deliveries that were not acted upon,
    writes alias pointers that differ from the catalog, and starts one migration per deprecated base that
    has a successor, whose date has come and that still carries adapters. A second sweep meanwhile starts
    nothing twice. A pair that breaks, or a registry that does not answer, stops no other pair; the run then
    ends as failed.
    """
    config = load_config(load_settings().webhook_config)
    logger = get_run_logger()
    unasked = _ask_registry(config)
    finish_deliveries(config)
    for pointer in settle_aliases():
        logger.warning("%s: the pointer differed from the catalog and was written anew", pointer)
    started = [_start(pair, config.migration) for pair in due_pairs(config.migration)]
    for one in started:
        logger.info("%s → %s: %s, %d adapters", one.source, one.target, one.state, len(one.adapters))
    broken = unasked + [f"{one.source}: {one.reason}" for one in started if one.state == "failed"]
    return Failed(message="; ".join(broken), data=started) if broken else started


def _ask_registry(config: RegistryConfig) -> list[str]:
    """Take over what MLflow says; returns why that was not possible, if it was not."""
    state: State[Any] = poll_registry(config, return_state=True)
    found = state.result(raise_on_failure=False)
    if isinstance(found, CrossLoraError):
        get_run_logger().error("MLflow was not asked: %s", found)
        return [f"MLflow: {found}"]
    for base in state.result():
        get_run_logger().info("%s: the registry says it is deprecated", base)
    return []


def _start(pair: DuePair, options: TransferOptions) -> Started:
    try:
        return start_pair(pair, options, REQUESTER)
    except Exception as error:
        if is_outage(error):
            raise
        get_run_logger().exception("%s → %s", pair.source, pair.target)
        reason = str(error) if isinstance(error, CrossLoraError) else f"{type(error).__name__}: {error}"
        return Started(pair.source, pair.target, pair.adapters, "failed", reason=reason)


@task(name="finish deliveries", **TASK_OPTIONS)
def finish_deliveries(config: RegistryConfig) -> dict[str, str]:
    """Do what deliveries asked for that were not acted upon, or in vain; says what became of each."""
    return {one.delivery: act_upon(one, config) for one in unfinished_deliveries(failed=True)}
