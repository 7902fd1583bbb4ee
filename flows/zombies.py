"""Runs whose process or machine died: mark them as crashed, and start crashed ones again a few times.

Prefect's server believes a run to be running until somebody says otherwise. A
run that is still alive but whose heartbeats got lost is started a second time
by this; both then find in the store what the other made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.states import AwaitingRetry, Crashed
from pydantic import Field

__all__ = ["FreedRun", "free_dead_runs", "resume_dead_runs"]

_FLOWS = ["migrate-fleet", "factorize-base"]
_PARTS = ["migrate-fleet-part"]
"""Child flow runs of those; they die with their parents, and resumed parents start others."""
_PAGE = 200


@dataclass(frozen=True)
class FreedRun:
    """What was done with one run: `resumed`, or `given up` after too many crashes."""

    flow_run: str
    name: str
    crashes: int
    became: str


def free_dead_runs(*, silent_seconds: float, attempts: int, within_hours: float = 24) -> list[FreedRun]:
    """Crash runs that went silent, and schedule crashed ones again.

    Args:
        silent_seconds: a pending or running run without a heartbeat or a change of state for so long is
            dead; at least twice the workers' PREFECT_FLOWS_HEARTBEAT_FREQUENCY.
        attempts: a run that crashed so many times stays crashed.
        within_hours: crashes before that are left alone.
    """
    with get_client(sync_client=True) as client:
        for names, deployed in ((_FLOWS, True), (_PARTS, False)):
            for run in _runs(client, names, StateType.PENDING, StateType.RUNNING, deployed=deployed):
                _crash_if_silent(client, run, timedelta(seconds=silent_seconds))
        since = datetime.now(UTC) - timedelta(hours=within_hours)
        crashed = [run for run in _runs(client, _FLOWS, StateType.CRASHED) if _changed(run) >= since]
        return [_resume(client, run, attempts) for run in crashed]


def _runs(
    client: SyncPrefectClient, names: Sequence[str], *states: StateType, deployed: bool = True
) -> Iterator[FlowRun]:
    """Runs of deployments, as a run from a terminal has nobody to start it again; or of none."""
    where = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": list(states)}}, "deployment_id": {"is_null_": not deployed}}
    )
    flows = FlowFilter.model_validate({"name": {"any_": list(names)}})
    found: list[FlowRun] = []
    while page := client.read_flow_runs(
        flow_filter=flows, flow_run_filter=where, limit=_PAGE, offset=len(found)
    ):
        found += page
    yield from found


def _changed(run: FlowRun) -> datetime:
    assert run.state is not None
    return run.state.timestamp


def _crash_if_silent(client: SyncPrefectClient, run: FlowRun, silence: timedelta) -> None:
    limit = datetime.now(UTC) - silence
    if _changed(run) < limit and not _has_heartbeat(client, run.id, since=limit):
        message = f"No heartbeat for {silence.total_seconds():.0f} seconds; its worker or machine is gone."
        client.set_flow_run_state(run.id, Crashed(message=message))


def _has_heartbeat(client: SyncPrefectClient, run: UUID, since: datetime) -> bool:
    wanted = EventFilter(
        occurred=EventOccurredFilter(since=since),
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run}"]),
    )
    return client.read_events(wanted, limit=1).total > 0


def _resume(client: SyncPrefectClient, run: FlowRun, attempts: int) -> FreedRun:
    crashes = sum(state.type == StateType.CRASHED for state in client.read_flow_run_states(run.id))
    if crashes >= attempts:
        return FreedRun(str(run.id), run.name, crashes, "given up")
    client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=datetime.now(UTC)))
    return FreedRun(str(run.id), run.name, crashes, "resumed")


@flow(name="resume-dead-runs", persist_result=False)
def resume_dead_runs(
    silent_seconds: Annotated[
        int, Field(ge=60, description="Silence after which a running run is taken for dead, in seconds")
    ] = 300,
    attempts: Annotated[
        int, Field(ge=1, le=20, description="A run that crashed so many times is not started again")
    ] = 3,
) -> list[dict[str, Any]]:
    """Free migrations whose worker died and start them again; what they stored is not computed twice."""
    freed = free_dead_runs(silent_seconds=silent_seconds, attempts=attempts)
    for one in freed:
        get_run_logger().info("%s crashed %d times: %s", one.name, one.crashes, one.became)
    return [asdict(one) for one in freed]
