"""A fleet beyond the bound runs in child flow runs, and everything else is as if it had not."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import suppress

import httpx
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.context import FlowRunContext
from prefect.flow_engine import run_flow
from prefect.states import AwaitingRetry, Running
from prefect.task_runners import ThreadPoolTaskRunner

import flows.fleet_parts as parting
import flows.migrate_fleet as migrating
from cross_lora_core.errors import ObjectNotFound
from flows.fleet_parts import PART_FLOW, run_in_parts
from flows.interrupts import noticing_interrupts
from flows.tag_limits import LimitedTags
from flows.task_runners import BorrowedRunner
from flows.zombies import free_dead_runs
from tests.flows.test_migrate_fleet import by_adapter, catalog, request_for, stored_files

pytestmark = pytest.mark.flow


@pytest.fixture
def whole_fleet(prefect_server, home, monkeypatch):
    """Several layer groups even on pico bases; a home of its own."""
    monkeypatch.setenv("CROSS_LORA_GROUP_BYTES", str(2**17))


def split(monkeypatch, task_runs: int) -> None:
    monkeypatch.setattr(parting, "_TASK_RUNS_OF_A_PART", task_runs)


def runs_of(migration: int):
    """The migration's flow run, and its parts in the order they began."""
    with catalog().begin() as work, get_client(sync_client=True) as client:
        parent = client.read_flow_run(work.migration(migration).flow_run)
        parts = client.read_flow_runs(
            flow_filter=FlowFilter.model_validate({"name": {"any_": [PART_FLOW]}}),
            flow_run_filter=FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [str(parent.id)]}}),
        )
    return parent, sorted(parts, key=lambda run: run.start_time)


def rows_of(migration: int):
    with catalog().begin() as work:
        items = work.items_of(migration)
        measures = [(one.adapter_name, len(work.measures_of(one.id))) for one in items]
        factors = len(list(work.bases()))
    return (
        [(one.adapter_name, one.status, one.verdict, one.output_sha256) for one in items],
        measures,
        factors,
    )


@pytest.mark.usefixtures("whole_fleet")
def test_a_split_fleet_comes_to_the_same_and_is_not_run_again(fleet, home, monkeypatch):
    request = request_for(fleet)
    together = migrating.migrate_fleet(request)
    rows, keys = rows_of(together.migration), set(stored_files(home))
    assert runs_of(together.migration)[1] == []

    monkeypatch.setenv("CROSS_LORA_HOME", str(home.with_name("split")))
    split(monkeypatch, 8)
    parted = migrating.migrate_fleet(request)
    assert by_adapter(parted) == by_adapter(together)
    assert rows_of(parted.migration) == rows
    assert set(stored_files(home.with_name("split"))) == keys

    parent, parts = runs_of(parted.migration)
    assert [one.name for one in parts] == [
        f"{parent.name}, part {number} of {len(parts)}" for number in range(1, len(parts) + 1)
    ]
    assert 1 < len(parts) <= 4
    assert all(one.state_type == "COMPLETED" for one in parts)
    assert {"base:old-llama", "target:new-gemma", "method:cross-lora"} <= set(parts[-1].tags)
    assert parts[0].parameters["migration"] == parted.migration
    done = [item for one in parts for item in one.parameters["items"]]
    assert len(done) == len(set(done)) == 4
    assert max(len(json.dumps(one.parameters)) for one in parts) < 500

    assert migrating.migrate_fleet(request).items == parted.items
    assert runs_of(parted.migration)[1] == []


@pytest.mark.usefixtures("whole_fleet")
def test_one_that_breaks_in_a_part_fails_alone_and_the_next_run_mends_it(fleet, monkeypatch):
    import tasks.project_adapter as module

    real = module.project_landings

    def break_one(adapters, *rest):
        if any(update.rank == 2 for adapter in adapters for update in adapter.updates.values()):
            raise ObjectNotFound("a stored object", "none", "the store", "Look after the disk.")
        return real(adapters, *rest)

    split(monkeypatch, 1)
    request = request_for(fleet, adapters=[fleet.adapter("wide"), fleet.adapter("plain")])
    with monkeypatch.context() as patched:
        patched.setattr(module, "project_landings", break_one)
        broken = migrating.migrate_fleet(request)
    assert by_adapter(broken) == {"wide": "failed", "plain": "unverified"}
    assert "Look after the disk" in broken.items[0].reason
    assert len(runs_of(broken.migration)[1]) == 2
    assert by_adapter(migrating.migrate_fleet(request)) == {"wide": "unverified", "plain": "unverified"}


@pytest.mark.usefixtures("whole_fleet")
def test_an_outage_in_a_part_is_ridden_out_and_what_was_done_stays_done(fleet, monkeypatch):
    real, settled, outages = migrating.settle_item, [], [httpx.ConnectError("refused")]

    def settling(run):
        if settled and outages:
            raise outages.pop()
        settled.append(run.prepared.planned.adapter.name)
        return real(run)

    split(monkeypatch, 1)
    monkeypatch.setattr(migrating, "settle_item", settling)
    request = request_for(fleet, adapters=[fleet.adapter("plain"), fleet.adapter("wide")])
    outcome = migrating.migrate_fleet(request)
    assert [one.status for one in outcome.items] == ["done", "done"]
    assert settled == ["plain"]  # the other one was done when the second attempt looked


@pytest.mark.usefixtures("whole_fleet")
@pytest.mark.parametrize("left", ["crashed", "running"])
def test_a_resumed_flow_run_does_what_its_parts_left(fleet, monkeypatch, left):
    """As when the process was killed in the second part, and a worker takes up the flow run again."""
    real, settled = migrating.settle_item, []

    def settling(run):
        settled.append(run.prepared.planned.adapter.name)
        if len(settled) == 2:
            raise KeyboardInterrupt
        return real(run)

    split(monkeypatch, 1)
    monkeypatch.setattr(migrating, "settle_item", settling)
    request = request_for(fleet, adapters=[fleet.adapter(one) for one in ("plain", "wide", "measured")])
    with suppress(BaseException):
        migrating.migrate_fleet(request)
    assert len(settled) == 2
    with catalog().begin() as work, get_client(sync_client=True) as client:
        (migration,) = work.migrations()
        _, parts = runs_of(migration.id)
        for part in parts:
            if left == "running":
                client.set_flow_run_state(part.id, Running(), force=True)
        client.set_flow_run_state(migration.flow_run, AwaitingRetry(), force=True)
        again = client.read_flow_run(migration.flow_run)
    outcome = run_flow(migrating.migrate_fleet, flow_run=again, parameters={"request": request})
    assert [one.status for one in outcome.items] == ["done"] * 3


def test_an_interrupt_that_a_part_swallowed_stops_those_after_it(monkeypatch):
    begun = []

    def swallowing(_prepared, items, *_rest):
        begun.append(items)
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(parting, "_parts_of", lambda _plan, pending: [[one] for one in pending])
    monkeypatch.setattr(parting, "_run_child", swallowing)
    try:
        with pytest.raises(KeyboardInterrupt), noticing_interrupts():
            run_in_parts(type("Prepared", (), {"plan": None}), [1, 2, 3], begun.append)
    finally:
        signal.signal(signal.SIGINT, before)
    assert begun == [[1]]


@pytest.mark.usefixtures("prefect_server")
def test_a_part_whose_process_died_is_crashed_and_not_started_again():
    @flow(name=PART_FLOW)
    def part() -> None:
        pass

    with get_client(sync_client=True) as client:
        run = client.create_flow_run(part, state=Running())
        assert free_dead_runs(silent_seconds=0, attempts=3) == []
        assert client.read_flow_run(run.id).state_type == "CRASHED"


@pytest.mark.usefixtures("prefect_server")
def test_a_task_keeps_the_tags_that_the_server_limits():
    @task(tags=["counted-here", "for-nobody"])
    def tagged() -> None:
        pass

    assert LimitedTags().lean(tagged).tags == set()
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name("tag:counted-here", 1)
        try:
            assert LimitedTags().lean(tagged).tags == {"counted-here"}
        finally:
            client.delete_global_concurrency_limit_by_name("tag:counted-here")
    assert tagged.tags == {"counted-here", "for-nobody"}


@pytest.mark.usefixtures("prefect_server")
def test_a_child_on_a_borrowed_runner_uses_its_parents_workers_and_leaves_them_running():
    @task
    def worker() -> int:
        return threading.get_ident()

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1), persist_result=False)
    def parent() -> list[int]:
        lender = FlowRunContext.get().task_runner

        @flow(task_runner=BorrowedRunner(lender), persist_result=False)
        def child() -> int:
            return worker.submit().result()

        return [child(), child(), worker.submit().result()]

    assert len(set(parent())) == 1
