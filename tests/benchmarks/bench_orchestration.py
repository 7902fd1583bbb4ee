"""What orchestration costs per task run, beside an empty Prefect flow of the same shape; prints one JSON document.

    python -m tests.benchmarks.bench_orchestration --adapters 500 --scratch /tmp/orchestration

An adapter is `--groups` projections, a publication and a validation. Each flow runs in a process of its own on
a fresh database: `ephemeral` is the API that a command line starts, `server` a Prefect server on loopback, both
on SQLite, `postgres` a server on PostgreSQL; all with the batch sizes that `infra/prefect-server.env` gives one.
While a flow runs against a server, a third process asks it a simple question five times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

BACKENDS, FLOWS = ("ephemeral", "server", "postgres"), ("empty", "ours")
_DATABASE = "BENCH_POSTGRES"
"""Variable with the URL of Prefect's database, where that is no file."""
SEED = 0
_ASK_SECONDS = 0.2


class Watch:
    """Hears of every task run that ends: when it was, and the memory of the process now and then."""

    def __init__(self, expected: int) -> None:
        self.ended: list[float] = []
        self.cpu: list[float] = []
        self.rss_mb: dict[str, float] = {"start": resident_mb()}
        self._at = {max(1, expected * share // 100): f"{share} %" for share in (25, 50, 75, 100)}
        self._lock = threading.Lock()

    def expect(self, stage: str, count: int) -> None:
        """It is known how many there will be."""

    def advance(self, stage: str) -> None:
        with self._lock:
            self.ended.append(time.perf_counter())
            self.cpu.append(time.process_time())
            label = self._at.get(len(self.ended))
        if label:
            self.rss_mb[label] = resident_mb()

    def per_run(self, started: float, window: int = 1000) -> dict[str, float]:
        """Seconds per task run among the first and the last so many."""
        ended = [started, *sorted(self.ended)]
        size = min(window, len(self.ended))
        return {
            f"first_{size}": (ended[size] - ended[0]) / size,
            f"last_{size}": (ended[-1] - ended[-1 - size]) / size,
        }


def resident_mb() -> float:
    """Resident memory of this process now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def run_empty(arguments: argparse.Namespace) -> dict[str, Any]:
    """Task runs of the fleet's number and edges that do nothing, as plain Prefect."""
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE
    from prefect.task_runners import ThreadPoolTaskRunner

    watch = Watch(arguments.task_runs)

    @task(persist_result=False, cache_policy=NO_CACHE)
    def nothing(*_: Any) -> None:
        return None

    def begun(*parameters: Any, wait_for: Any = None) -> Any:
        future = nothing.submit(*parameters, wait_for=wait_for)
        future.add_done_callback(lambda _: watch.advance("nothing"))
        return future

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=arguments.workers), persist_result=False)
    def empty_flow() -> None:
        bases = [[begun(), begun()] for _ in range(arguments.groups)]
        pairs = [begun(wait_for=both) for both in bases]
        last = []
        for _ in range(arguments.adapters):
            projected = [begun(wait_for=[pair]) for pair in pairs]
            last.append(begun(begun(wait_for=projected)))
        for future in last:
            future.wait()

    return timed(empty_flow, watch)


def run_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """`migrate_fleet` with its compute stubbed."""
    import flows.migrate_fleet as migrating
    from cross_lora_core.migration import MigrationRequest
    from flows.progress import listening
    from tests.benchmarks.stubbed_fleet import RANK, bytes_for_groups, stub_compute

    stub_compute(rows=not arguments.without_rows)
    fleet = arguments.scratch / "fleet"
    os.environ["CROSS_LORA_GROUP_BYTES"] = str(bytes_for_groups(fleet / "new-base", arguments.groups))
    watch = Watch(arguments.task_runs)
    phases = {name: time_calls(migrating, name) for name in ("plan_migration", "finish_migration")}
    request = MigrationRequest(
        source=str(fleet / "old-base"), targets=[str(fleet / "new-base")],
        adapters=[str(fleet / "adapters")], rank=RANK,
    )  # fmt: skip
    with listening(watch):
        measured = timed(lambda: migrating.migrate_fleet(request), watch)
    return measured | {"phases": {name: sum(seconds) for name, seconds in phases.items()}}


def time_calls(module: Any, name: str) -> list[float]:
    """Replace a function by itself with a clock; the seconds of each call are in the list."""
    real, seconds = getattr(module, name), []

    def clocked(*values: Any) -> Any:
        started = time.perf_counter()
        try:
            return real(*values)
        finally:
            seconds.append(time.perf_counter() - started)

    setattr(module, name, clocked)
    return seconds


def timed(flow: Any, watch: Watch) -> dict[str, Any]:
    """Run a flow, after a small one that starts what is started once."""
    warm_up()
    watch.rss_mb["start"] = resident_mb()
    before, started = database_bytes(), time.perf_counter()
    flow()
    seconds = time.perf_counter() - started
    time.sleep(5)  # the server's recorder is still writing
    count = len(watch.ended)
    return {
        "task_runs": count,
        "seconds": seconds,
        "seconds_of_task_runs": max(watch.ended) - min(watch.ended),
        "cpu_seconds_of_task_runs": max(watch.cpu) - min(watch.cpu),
        "seconds_per_task_run": seconds / count,
        **watch.per_run(min(watch.ended)),
        "database_bytes_per_task_run": (database_bytes() - before) / count,
        "rss_mb": watch.rss_mb,
    }


def warm_up() -> None:
    """A flow run of one task run."""
    from prefect import flow, task

    @task
    def first() -> None:
        return None

    @flow(persist_result=False)
    def warming() -> None:
        first.submit().wait()

    warming()


def database_bytes() -> int:
    """Bytes of Prefect's database; of SQLite's, its log included."""
    if _DATABASE in os.environ:
        from sqlalchemy import create_engine, text

        with create_engine(os.environ[_DATABASE]).connect() as connection:
            found: int = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
        return found
    home = Path(os.environ["PREFECT_HOME"])
    return sum(path.stat().st_size for path in home.glob("prefect.db*"))


def measure(arguments: argparse.Namespace, flow: str, backend: str) -> dict[str, Any]:
    """Run one flow on one backend in a process of its own; both of them start with nothing."""
    place = arguments.scratch / f"{flow}-{backend}"
    shutil.rmtree(place, ignore_errors=True)
    with ExitStack() as stack:
        server, database = serving(stack, place / "prefect", backend)
        environment = {"CROSS_LORA_HOME": str(place / "home"), "CROSS_LORA_WORKERS": str(arguments.workers)}
        environment |= {"PREFECT_HOME": str(place / "prefect")} | (server.environment if server else {})
        environment |= {_DATABASE: database} if database else {}
        process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--measure", flow],
            stdout=subprocess.PIPE, text=True, env=os.environ | environment,
        )  # fmt: skip
        with asking(server) as seconds:
            said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(process.returncode)
    return json.loads(said.splitlines()[-1]) | ({"answer_seconds": quantiles(seconds)} if seconds else {})


def serving(stack: ExitStack, folder: Path, backend: str) -> tuple[Any, str]:
    """A Prefect server that stops with the stack, and the URL of its database if that is no file."""
    from tests.support.postgres import killable_postgres
    from tests.support.prefect_server import running_prefect

    if backend == "ephemeral":
        return None, ""
    database = stack.enter_context(killable_postgres()).empty_database() if backend == "postgres" else ""
    asynchronous = database.replace("psycopg", "asyncpg")
    return stack.enter_context(running_prefect(folder, database=asynchronous, **batch_sizes())), database


def batch_sizes() -> dict[str, str]:
    """How many rows a server writes at a time, as this project sets up one."""
    lines = (Path(__file__).parents[2] / "infra" / "prefect-server.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line.partition("=")[0].endswith("_BATCH_SIZE"))


@contextmanager
def asking(server: Any) -> Iterator[list[float]]:
    """Ask a server for its latest flow run until the block ends; how long each answer took."""
    seconds: list[float] = []
    if server is None:
        yield seconds
        return
    over = threading.Event()
    thread = threading.Thread(target=_ask, args=(server, seconds, over))
    thread.start()
    yield seconds
    over.set()
    thread.join()


def _ask(server: Any, seconds: list[float], over: threading.Event) -> None:
    import httpx

    user, _, secret = server.auth.partition(":")
    with httpx.Client(auth=(user, secret), timeout=60) as client:
        while not over.wait(_ASK_SECONDS):
            started = time.perf_counter()
            client.post(f"{server.api_url}/flow_runs/filter", json={"limit": 1}).raise_for_status()
            seconds.append(time.perf_counter() - started)


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Median, 99th percentile and slowest."""
    ordered = sorted(seconds)
    return {
        "count": len(ordered),
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[len(ordered) * 99 // 100],
        "slowest": ordered[-1],
    }


def main() -> None:
    """Build the fleet, run both flows on each backend, print the results."""
    arguments = parsed()
    if arguments.measure:
        from cross_lora_core.settings import load_settings
        from flows.embedded import configure_prefect

        os.environ["HF_HUB_OFFLINE"] = "1"
        configure_prefect(load_settings(), verbose="PREFECT_API_URL" in os.environ)
        print(json.dumps({"empty": run_empty, "ours": run_ours}[arguments.measure](arguments)))
        return
    from tests.benchmarks.stubbed_fleet import build_fleet

    shutil.rmtree(arguments.scratch / "fleet", ignore_errors=True)
    build_fleet(arguments.scratch / "fleet", adapters=arguments.adapters, layers=arguments.layers)
    results: dict[str, Any] = {}
    for backend in arguments.backend or BACKENDS[:2]:
        found = {flow: measure(arguments, flow, backend) for flow in arguments.flow or FLOWS}
        results[backend] = found | ratios(found)
    print(json.dumps(described(arguments) | {"results": results}, indent=2))


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """Ours over the empty flow."""
    if set(found) != set(FLOWS):
        return {}
    names = ("seconds", "seconds_of_task_runs", "cpu_seconds_of_task_runs", "database_bytes_per_task_run")
    return {f"ratio_of_{name}": found["ours"][name] / found["empty"][name] for name in names}


def described(arguments: argparse.Namespace) -> dict[str, Any]:
    """The machine, the versions, and what was asked for."""
    from tests.benchmarks.machine import machine

    asked = {
        name: getattr(arguments, name)
        for name in ("adapters", "groups", "layers", "workers", "task_runs", "without_rows")
    }
    return {"machine": machine("prefect", "sqlalchemy"), "load": os.getloadavg(), "seed": SEED} | asked


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapters", type=int, default=500)
    parser.add_argument("--groups", type=int, default=2, help="layer groups of the target")
    parser.add_argument("--layers", type=int, default=28, help="of both bases")
    parser.add_argument("--workers", type=int, default=8, help="threads of the task runner")
    parser.add_argument(
        "--without-rows", action="store_true", help="orchestration alone: no verdicts in the catalog"
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, action="append", help="may be repeated; by default all on SQLite"
    )
    parser.add_argument("--flow", choices=FLOWS, action="append")
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for everything that is written")
    parser.add_argument("--measure", choices=FLOWS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.task_runs = arguments.groups * 3 + arguments.adapters * (arguments.groups + 2)
    return arguments


if __name__ == "__main__":
    main()
