"""A flow run waits until the server has written down what it did."""

from __future__ import annotations

import pytest
from prefect import flow, runtime, task

import flows.records as module
from flows.records import await_records

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server", "home")]


@task
def one(number: int) -> int:
    return number


def counted_after(task_runs: int, expected: int) -> int:
    """How many of its task runs a server knows as ended when a flow run has awaited so many."""

    @flow
    def several() -> int:
        for future in [one.submit(number) for number in range(task_runs)]:
            future.wait()
        await_records(expected)
        assert runtime.flow_run.id
        with module.get_client(sync_client=True) as client:
            return module._count_ended(client)

    return several()


def test_every_task_run_is_known_afterwards():
    assert counted_after(30, 30) == 30


def test_those_that_never_end_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(module, "_QUIET_SECONDS", 1.0)
    assert counted_after(3, 5) == 3
