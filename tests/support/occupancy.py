"""A flow whose device tasks note when they hold a device and where, for any task runner.

In a module of its own: workers in other processes import it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, task
from prefect.futures import PrefectFuture

from flows.task_runners import RUNNER
from tasks.device_slots import DEVICE_TAG


@dataclass(frozen=True)
class Stay:
    """From when until when a task held a device, in which process; seconds of the machine's clock."""

    process: int
    start: float
    end: float


@task(tags=[DEVICE_TAG])
def occupy(folder: str, number: int, after: int) -> Stay:
    """Hold a device for a moment; fails where an earlier task was to end first and has not."""
    done = Path(folder)
    assert after < 0 or (done / str(after)).exists(), "started before its input ended"
    start = time.monotonic()
    time.sleep(0.2)
    (done / str(number)).touch()
    return Stay(os.getpid(), start, time.monotonic())


@task
def break_down() -> None:
    raise ValueError("broken on purpose")


@flow(task_runner=RUNNER, persist_result=False)
def crowd(folder: str, count: int) -> tuple[list[Stay], str]:
    """Each device task waits for the one four before it; one more waits for a task that fails."""
    futures: list[PrefectFuture] = []
    for number in range(count):
        before = futures[number - 4 : number - 3] if number >= 4 else []
        futures.append(occupy.submit(folder, number, number - 4, wait_for=before))
    broken = break_down.submit()
    never = occupy.submit(folder, count, -1, wait_for=[broken])
    never.wait()
    assert not (Path(folder) / str(count)).exists()
    return [one.result() for one in futures], never.state.name


def most_at_once(stays: Iterable[Stay]) -> int:
    """The largest number of stays that overlap at one moment."""
    events = sorted(event for one in stays for event in ((one.start, 1), (one.end, -1)))
    held = most = 0
    for _, change in events:
        held += change
        most = max(most, held)
    return most
