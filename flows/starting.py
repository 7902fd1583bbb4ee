"""Start the migration of a deprecated base: its deployment where there is a server, or else here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from prefect import get_client
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound

from cross_lora_core.catalog import StartRecord
from cross_lora_core.errors import ConfigurationError
from cross_lora_core.migration import MigrationRequest, TransferOptions
from cross_lora_core.settings import load_settings
from flows.migrate_fleet import migrate_fleet
from tasks.due_migrations import DuePair, claim_start, end_start, note_start, pair_of, running_here

__all__ = ["DEPLOYMENT", "EVENT", "Started", "start_pair", "start_source", "submit_migration"]

DEPLOYMENT = "migrate-fleet/migrate-fleet"
EVENT = "cross-lora.base.deprecated"
"""Emitted instead of starting where `CROSS_LORA_WEBHOOK_START` is `event`; infra/automations/ answers it."""

_State = Literal["started", "running", "finished", "nothing", "event", "failed"]


@dataclass(frozen=True)
class Started:
    """What became of a pair of bases.

    Attributes:
        state: `started`; `running`: it was before; `finished` here, without a server; `nothing` to move;
            `event`: left to an automation; `failed`: it could not be started, or broke here.
        flow_run: Prefect's id, where there is one.
        reason: why it failed.
    """

    source: str
    target: str
    adapters: tuple[str, ...]
    state: _State
    flow_run: str | None = None
    reason: str = ""


def submit_migration(request: MigrationRequest, idempotency_key: str) -> str:
    """Start the `migrate-fleet` deployment; the same key finds the run that it started before.

    Returns:
        The flow run's id.

    Raises:
        ConfigurationError: the server has no such deployment.
    """
    try:
        run: Any = run_deployment(
            DEPLOYMENT,
            parameters={"request": request.model_dump(mode="json")},
            timeout=0,
            as_subflow=False,
            idempotency_key=idempotency_key,
        )
    except ObjectNotFound as error:
        where = os.environ.get("PREFECT_API_URL", "Prefect's API")
        remedy = "Run `cross-lora deploy` against this server."
        raise ConfigurationError(f"deployment {DEPLOYMENT}", "none", where, remedy) from error
    return str(run.id)


def start_source(source: str, options: TransferOptions, requested_by: str) -> Started:
    """Start what a deprecated base needs, or leave that to an automation if the settings say so.

    Raises:
        RecordNotFound: no such base, or it has no successor.
    """
    pair = pair_of(source, options)
    if pair.adapters and load_settings().webhook_start == "event":
        resource = {"prefect.resource.id": f"cross-lora.base.{source}", "prefect.resource.name": source}
        emit_event(event=EVENT, resource=resource, payload={"source": source, "target": pair.target})
        return Started(pair.source, pair.target, pair.adapters, "event")
    return start_pair(pair, options, requested_by)


def start_pair(pair: DuePair, options: TransferOptions, requested_by: str) -> Started:
    """Start the migration of a pair once, whoever else sees the same need at the same time."""
    if os.environ.get("PREFECT_API_URL"):
        return _deployed(pair, options, requested_by)
    return _run_here(pair, options, requested_by)


def _deployed(pair: DuePair, options: TransferOptions, requested_by: str) -> Started:
    start = claim_start(pair, options, requested_by)
    if start is not None and start.flow_run is not None and _has_ended(start.flow_run):
        end_start(start)
        start = claim_start(pair, options, requested_by)
    if start is None:
        return Started(pair.source, pair.target, (), "nothing")
    request = MigrationRequest.model_validate(start.request)
    if start.flow_run is not None:
        return _as_started(pair, request, "running", start.flow_run)
    flow_run = submit_migration(request, start.key)
    note_start(start, flow_run)
    return _as_started(pair, request, "started", flow_run)


def _run_here(pair: DuePair, options: TransferOptions, requested_by: str) -> Started:
    with running_here(pair) as ours:
        if not ours:
            return Started(pair.source, pair.target, pair.adapters, "running")
        start: StartRecord | None = claim_start(pair, options, requested_by)
        if start is None:
            return Started(pair.source, pair.target, (), "nothing")
        request = MigrationRequest.model_validate(start.request)
        migrate_fleet(request)
        end_start(start)
        return _as_started(pair, request, "finished", None)


def _as_started(pair: DuePair, request: MigrationRequest, state: _State, run: str | None) -> Started:
    return Started(pair.source, pair.target, tuple(request.adapters), state, run)


def _has_ended(flow_run: str) -> bool:
    """Whether a flow run is over; one the server no longer knows is."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(flow_run)).state
        except ObjectNotFound:
            return True
    return state is not None and state.is_final()
