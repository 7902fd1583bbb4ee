"""The cost of one more adapter over one pair of bases; prints one JSON document.

    python tests/benchmarks/bench_fleet.py --scratch /tmp/fleet --small           # a try, seconds
    python tests/benchmarks/bench_fleet.py --scratch /tmp/fleet                   # 1.5B -> 3B shapes, 6 GB of disk

Factors are orthonormal bases with a slowly decaying spectrum, stored by the product's own writers
(`fleet_stand.py`), so that no weight has to be factorized. Adapters go through the product's tasks, as many
at a time as `--workers`; what they store is removed, untimed, after every `--distinct` adapters. A fleet larger
than that has the same inputs again. The floor is the time in which the product's own functions read the same
adapter, digest included, and put the same output into the store, fsync and checksums included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

RANK, SMALL_RANK, ADAPTER_RANK = 320, 40, 16
STEPS = ("adapters", "memory", "memory together")


class Clock:
    """Seconds of the wall and of all cores of this process while a block ran."""

    def __enter__(self) -> Clock:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began[0]
        self.cpu_seconds = time.process_time() - self._began[1]


class Stand:
    """Bases with stored factors, and adapters, in a scratch folder that the product takes for its home."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        import fleet_stand as stand

        self.arguments = arguments
        self.sides = (
            (stand.SMALL_SOURCE, stand.SMALL_TARGET) if arguments.small else (stand.SOURCE, stand.TARGET)
        )
        self.folder = arguments.scratch / ("small" if arguments.small else "full")
        rank = SMALL_RANK if arguments.small else RANK
        adapters = stand.make_adapters(
            self.folder / "adapters", self.sides[0], arguments.distinct, ADAPTER_RANK, arguments.seed
        )
        self._plan_of = partial(stand.plan_of, self.folder, self.sides)
        self.plan = self._plan_of(adapters, rank, arguments.group_bytes)
        with Clock() as clock:
            self.stored_bytes = stand.put_factors(self.plan, arguments.seed)
        self.set_up_seconds = clock.seconds
        self.forget()

    def forget(self) -> None:
        import fleet_stand as stand

        stand.forget(self.plan)

    def plan_again(self, item: Any) -> Any:
        """The plan of one adapter, bases opened anew."""
        from cross_lora_core.migration import AdapterCandidate

        wanted = [AdapterCandidate(item.adapter.name, item.adapter.location)]
        return self._plan_of(wanted, self.plan.spec.rank, self.arguments.group_bytes)

    def tasks(self, item: Any, neighbours: Sequence[Any] | None) -> list[Callable[[], Any]]:
        """The layer groups of an adapter, as the flow submits them."""
        from cross_lora_core.migration import FactorSource
        from tasks.project_adapter import project_group

        (target,) = self.plan.targets
        return [
            partial(
                project_group.fn, self.plan.source, item, group, self.plan.spec,
                FactorSource.of(self.plan, target, group), neighbours and tuple(neighbours),
            )
            for group in target.groups
        ]  # fmt: skip

    def publish(self, item: Any, awaited: Sequence[Future[Any]] = ()) -> Any:
        from tasks.publish_adapter import publish_adapter

        for future in awaited:
            future.result()
        return publish_adapter.fn(self.plan, item)

    def move(self, items: Iterable[Any]) -> None:
        """Adapters through projection and publication, tasks in the flow's order."""
        from flows.neighbours import with_neighbours
        from tasks.plan_migration import PreparedItem

        prepared = [PreparedItem(number, item, None) for number, item in enumerate(items)]
        with ThreadPoolExecutor(self.arguments.workers) as pool:
            last = []
            for one, neighbours in with_neighbours(self.plan, prepared):
                item = one.planned
                groups = [pool.submit(task) for task in self.tasks(item, neighbours)]
                last.append(pool.submit(self.publish, item, groups))
        for future in last:
            future.result()


def measured_adapters(stand: Stand) -> dict[str, Any]:
    """The first adapter, one more, the floor, and fleets."""
    with Clock() as planning:
        plan = stand.plan_again(stand.plan.items[0])
    with Clock() as first:
        stand.move(plan.items)
    alone, floors = _alone_and_floor(stand)
    fleets = [_fleet(stand, count) for count in stand.arguments.adapters]
    floor = statistics.median(one["seconds"] for one in floors)
    second = statistics.median(one["seconds"] for one in alone)
    return {
        "set up": {"seconds": stand.set_up_seconds, "stored bytes": stand.stored_bytes},
        "one adapter in a new process, factors stored": {
            "planning seconds": planning.seconds,
            "projection and publication seconds": first.seconds,
            "seconds": planning.seconds + first.seconds,
        },
        "one more adapter, alone": {"median seconds": second, "runs": alone},
        "floor": {"median seconds": floor, "runs": floors},
        "one more adapter over floor": second / floor,
        "one more adapter over floor, side by side": [
            one["seconds"] / other["seconds"] for one, other in zip(alone, floors, strict=True)
        ],
        "fleets": fleets,
        "fleet adapter over floor": {one["adapters"]: one["seconds per adapter"] / floor for one in fleets},
    }


def _alone_and_floor(stand: Stand) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Side by side: an adapter by itself, then the same files read and written and nothing else."""
    alone, floors = [], []
    for _ in range(stand.arguments.repeats):
        for item in stand.plan.items[1:3]:
            stand.forget()
            with Clock() as clock:
                stand.move([item])
            alone.append({"seconds": clock.seconds, "cpu seconds": clock.cpu_seconds})
            floors.append(_floor(stand, item))
    stand.forget()
    return alone, floors


def _floor(stand: Stand, item: Any) -> dict[str, float]:
    from cross_lora_core.adapters import read_adapter
    from tasks.device_slots import small_products
    from tasks.runtime import open_stored

    store = open_stored()
    published = stand.publish(item)  # was just published: found
    with Clock() as reading, small_products():
        read_adapter(item.adapter.location)
    with Clock() as writing:
        store.put_folder("adapters/floor", Path(published.url))
    both = reading.seconds + writing.seconds
    return {"read": reading.seconds, "write": writing.seconds, "seconds": both}


def _fleet(stand: Stand, count: int) -> dict[str, float]:
    seconds = cpu_seconds = 0.0
    for done in range(0, count, stand.arguments.distinct):
        items = stand.plan.items[: min(stand.arguments.distinct, count - done)]
        with Clock() as clock:
            stand.move(items)
        seconds, cpu_seconds = seconds + clock.seconds, cpu_seconds + clock.cpu_seconds
        stand.forget()
    return {
        "adapters": count,
        "seconds": seconds,
        "seconds per adapter": seconds / count,
        "cpu seconds per adapter": cpu_seconds / count,
    }


def measured_memory(arguments: argparse.Namespace, adapters: int) -> dict[str, float]:
    """Peak of a process that plans some adapters and projects them together, above where imports left it, MB.

    Pages of mapped files count in RSS and not as anonymous.
    """
    import tasks.project_adapter  # noqa: F401

    before, peaks, done = _memory(), [], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peaks.append(_memory())

    watching = threading.Thread(target=watch)
    watching.start()
    arguments.distinct = adapters
    stand = Stand(arguments)
    first, *others = stand.plan.items
    for task in stand.tasks(first, others):
        task()
    done.set()
    watching.join()
    stand.forget()
    largest = max(one.d_ff * one.width for one in stand.sides) * 4 / 2**20
    above = {name: max(one[name] for one in peaks) - before[name] for name in before}
    above["rss by getrusage"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before["Rss"]
    return {"largest tensor": largest, **{f"{name} above start": value for name, value in above.items()}}


def _memory() -> dict[str, float]:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith("kB")}
    return {name: found[name] for name in ("Rss", "Anonymous", "Private_Dirty")}


def published_approach(stand: Stand) -> dict[str, Any]:
    """Seconds of a full SVD of one weight of each distinct shape, and what an adapter would cost by them."""
    import fleet_stand
    import torch

    sample: dict[str, float] = {}
    total = 0.0
    for side in stand.sides:
        for sizes in fleet_stand.linears_of(side).values():
            name = "x".join(str(size) for size in sorted(sizes, reverse=True))
            if name not in sample:
                weight = torch.randn(*sorted(sizes, reverse=True))
                with Clock() as clock:
                    torch.linalg.svd(weight, full_matrices=False)
                sample[name] = clock.seconds
            total += side.layers * sample[name]
    return {"svd seconds by shape": sample, "seconds per adapter, extrapolated": total}


def run_step(arguments: argparse.Namespace) -> dict[str, Any]:
    """One step in a process of its own."""
    if arguments.step == "memory":
        return measured_memory(arguments, 1)
    if arguments.step == "memory together":
        from tasks.adapters_in_memory import ADAPTERS_TOGETHER

        return measured_memory(arguments, ADAPTERS_TOGETHER)
    stand = Stand(arguments)
    result = measured_adapters(stand)
    if arguments.published:
        result["published approach"] = published_approach(stand)
        cost = result["published approach"]["seconds per adapter, extrapolated"]
        result["published approach over ours"] = {
            one["adapters"]: cost / one["seconds per adapter"] for one in result["fleets"]
        }
    return result


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True, help="on the disk that is to be measured")
    parser.add_argument("--small", action="store_true", help="small shapes, for trying")
    parser.add_argument("--adapters", type=int, nargs="*", default=[1, 10, 100], help="sizes of fleets")
    parser.add_argument("--distinct", type=int, default=10, help="adapters that are made")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="tasks at a time")
    parser.add_argument("--group-bytes", type=int, default=256 * 2**20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-published", dest="published", action="store_false", help="leave the SVDs out")
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=STEPS)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Every step in a process of its own; the results with machine, versions and seed."""
    arguments = parsed()
    if arguments.step:
        print(json.dumps(run_step(arguments)))
        return
    results = {step: _in_a_process(step, arguments) for step in arguments.steps}
    from machine import machine

    told = {name: str(value) for name, value in vars(arguments).items() if name != "step"}
    print(json.dumps({"machine": machine("safetensors"), "arguments": told, **results}, indent=2))


def _in_a_process(step: str, arguments: argparse.Namespace) -> Any:
    folder = arguments.scratch.absolute() / ("small" if arguments.small else "full")
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "CROSS_LORA_HOME": str(folder / "home"),
        "CROSS_LORA_WORKERS": str(arguments.workers),
        "CROSS_LORA_GROUP_BYTES": str(arguments.group_bytes),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    command = [sys.executable, __file__, *sys.argv[1:], "--step", step]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
