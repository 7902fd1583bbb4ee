"""One trial: start a migration, kill something at a seeded point, recover by the documented command, compare."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tasks.adapters_in_memory import ADAPTERS_TOGETHER
from tests.survival import deployed, journal
from tests.survival.picture import Picture, evaluations, take
from tests.survival.stand import Ground, Run, Stand

WORKERS = 2
DONE = 4
"""Exit code of a migration in which everything is done and one adapter was refused, as one of the fleet is."""
PATIENCE = 300.0
STEPS = 64
"""Journal lines of an undisturbed run, about; a seeded point beyond its end means: after everything was done."""


@dataclass(frozen=True)
class Point:
    """When to kill: after so many journal lines (0: from the start) and then so many seconds."""

    steps: int
    seconds: float

    def __str__(self) -> str:
        return f"step {self.steps} + {self.seconds:.2f} s"


@dataclass
class Result:
    """What became of a trial.

    Attributes:
        point: when the victim was killed.
        reached: journal lines there were when it was.
        survivor: how the process that was running ended: its exit code and how many items failed, or `killed`.
        recovery: exit code of the documented command afterwards.
        seconds: from the kill until everything was as undisturbed.
        in_flight: computations that were begun and not stored when the victim was killed.
        redone: computations done again, all of them among those.
        lost: everything in which the end differs from an undisturbed run; empty is survival.
    """

    trial: int
    seed: int
    victim: str
    point: str
    reached: int = 0
    survivor: str = ""
    recovery: int = -1
    seconds: float = 0.0
    in_flight: int = 0
    redone: int = 0
    lost: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Undisturbed:
    """What a run that nobody killed leaves, and what it computed."""

    picture: Picture
    computed: dict[str, int]


SERVERS = ("s3", "postgres", "prefect")
VICTIMS = ("flow", *SERVERS, "worker")
OUTAGE = 5.0
"""Seconds a killed server stays away, at most."""


def run_undisturbed(stand: Stand) -> Undisturbed:
    ground = stand.ground()
    run = stand.migrate(ground)
    assert run.wait(PATIENCE) == DONE, run.said[-3000:]
    picture = take(stand, ground)
    assert not picture.differs_from(picture)
    return Undisturbed(picture, dict(journal.begun(journal.read(ground.journal))))


def run_trial(stand: Stand, undisturbed: Undisturbed, number: int, seed: int, victim: str) -> Result:
    """Kill `victim` at the point that `seed` and `number` decide, and see what is left."""
    chance = random.Random(f"{seed}/{number}/{victim}")
    point = _point(chance, victim)
    result = Result(number, seed, victim, str(point))
    ground = stand.ground()
    run = _begin(stand, ground, victim)
    _wait_for(point, run, ground, sum(undisturbed.computed.values()) * 2)
    if victim in SERVERS:
        killed_at, visible = _kill_server(stand, ground, run, victim, chance.uniform(0, OUTAGE))
    else:
        run.kill()
        killed_at, visible = time.time(), take(stand, ground)
    result.reached = sum(entry.at <= killed_at for entry in journal.read(ground.journal))
    result.lost += [f"visible after the kill: {one}" for one in visible.half_written]
    if victim == "worker":
        _finish_deployed(stand, ground, result)
    _recover(stand, ground, run, result)
    result.seconds = round(time.time() - killed_at, 1)
    result.lost += take(stand, ground).differs_from(undisturbed.picture)
    _count_redone(journal.read(ground.journal), killed_at, visible, undisturbed, result)
    return result


def _kill_server(stand: Stand, ground: Ground, run: Run, victim: str, outage: float) -> tuple[float, Picture]:
    """Kill it; look at what it kept while the run stands still; kill it again and let the run meet that."""
    server = stand.server(victim)
    server.kill()
    with run.frozen():
        killed_at = time.time()
        server.start()
        visible = take(stand, ground)
        server.kill()
    time.sleep(outage)
    server.start()
    return killed_at, visible


def _point(chance: random.Random, victim: str) -> Point:
    """A worker has a process to start first, which may be killed too."""
    steps = chance.randrange(STEPS)
    return Point(steps, chance.uniform(0, 0.3 if steps else 15 if victim == "worker" else 1.5))


def _begin(stand: Stand, ground: Ground, victim: str) -> Run:
    """The process that may be killed: the command, or a worker that the server gives the migration to."""
    if victim != "worker":
        return stand.migrate(ground)
    deployed.submit(stand, ground)
    return deployed.start_worker(stand, ground)


def _wait_for(point: Point, run: Run, ground: Ground, lines: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while not run.ended and len(journal.read(ground.journal)) < min(point.steps, lines):
        assert time.monotonic() < deadline, f"step {point.steps} never came: {run.said[-3000:]}"
        time.sleep(0.005)
    time.sleep(point.seconds)


def _finish_deployed(stand: Stand, ground: Ground, result: Result) -> None:
    state = deployed.finish(stand, ground, PATIENCE)
    if state != "COMPLETED":
        result.lost.append(f"the deployment's run ended {state}")


def _recover(stand: Stand, ground: Ground, run: Run, result: Result) -> None:
    """Let the survivor end as it can, then run the documented command once."""
    code = run.wait(PATIENCE)
    failed = len(_unfinished(run))
    result.survivor = "killed" if code == -9 else f"{code}, {failed} failed" if failed else str(code)
    if code == 1:  # whatever is foreseen has an exit code of its own
        result.lost.append(f"not a foreseen error: {run.said[-600:]}")
    again = stand.migrate(ground)
    result.recovery = again.wait(PATIENCE)
    if result.recovery != DONE or _unfinished(again):
        result.lost.append(f"recovery ended {result.recovery}: {_unfinished(again) or again.said[-600:]}")


def _unfinished(run: Run) -> list[Any]:
    with suppress(ValueError):
        items = run.document.get("items", [])
        return [one for one in items if one["status"] == "failed"]
    return []


def _count_redone(
    entries: list[journal.Entry],
    killed_at: float,
    visible: Picture,
    undisturbed: Undisturbed,
    result: Result,
) -> None:
    """What was visible after the kill must not be computed again; what was in flight may."""
    before = journal.begun([one for one in entries if one.at <= killed_at])
    after = journal.begun([one for one in entries if one.at > killed_at])
    in_flight = [what for what in before if what != "evaluate" and not visible.holds(what)]
    unfinished = undisturbed.computed["evaluate"] - evaluations(visible)
    in_flight += ["evaluate"] * (before["evaluate"] - evaluations(visible))
    result.in_flight = len(in_flight)
    result.redone = sum(after[what] for what in set(in_flight) if what != "evaluate")
    result.redone += max(0, before["evaluate"] + after["evaluate"] - undisturbed.computed["evaluate"])
    result.lost += [f"computed again though it was stored: {what}" for what in after if visible.holds(what)]
    result.lost += [
        f"computed {times} times after the kill: {what}"
        for what, times in after.items()
        if times > (unfinished if what == "evaluate" else 1)
    ]
    if len(in_flight) > WORKERS * ADAPTERS_TOGETHER:
        result.lost.append(f"{len(in_flight)} computations in flight on {WORKERS} workers")
