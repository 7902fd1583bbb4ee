"""The production path on loopback: S3, PostgreSQL and Prefect servers that can be killed, and a pico fleet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tests.support.fleets import make_adapter, poison, write_rows
from tests.support.pico_models import build_pico
from tests.support.postgres import Postgres, killable_postgres
from tests.support.prefect_server import PrefectServer, running_prefect
from tests.support.seaweed import Seaweed, running_seaweed
from tests.support.servers import is_running, kill_all, stop, with_descendants
from tests.survival.journal import VARIABLE

BUCKET = "survival"
CLEAN = {
    name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "CROSS_LORA_"))
}


@dataclass(frozen=True)
class Ground:
    """Where one migration happens: a prefix, a database, a home that nothing else uses."""

    folder: Path
    store: str
    catalog: str

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "CROSS_LORA_HOME": str(self.folder / "home"),
            "CROSS_LORA_STORE": f"{self.store}&cache={self.folder / 'cache'}",
            "CROSS_LORA_CATALOG": self.catalog,
            "CROSS_LORA_GROUP_BYTES": str(2**17),
            "CROSS_LORA_WORKERS": "2",
            "TMPDIR": str(self.folder / "scratch"),
            VARIABLE: str(self.journal),
        }


@dataclass
class Run:
    """A process of the command line."""

    launcher: Launcher
    pid: int
    output: Path
    errors: Path
    code: int | None = None

    @property
    def ended(self) -> bool:
        return not is_running(self.pid)

    def wait(self, seconds: float) -> int:
        """Its exit code; fails if it takes longer."""
        deadline = time.monotonic() + seconds
        while not self.ended:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"did not end in {seconds:.0f} s: {self.said[-3000:]}")
            time.sleep(0.02)
        if self.code is None:
            self.code = int(self.launcher.ask({"wait": self.pid})["code"])
        return self.code

    def kill(self) -> None:
        kill_all(with_descendants(self.pid))
        self.wait(20)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It stands still while the block runs."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)

    @property
    def said(self) -> str:
        return self.errors.read_text(errors="replace")

    @property
    def document(self) -> dict[str, Any]:
        """What it printed; empty if nothing."""
        text = self.output.read_text()
        return json.loads(text) if text.strip() else {}


@dataclass
class Launcher:
    """Starts command-line processes without waiting for their imports."""

    process: subprocess.Popen[str]

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answered: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answered


@dataclass
class Stand:
    """All servers, the launcher and the fleet's folders."""

    folder: Path
    store: Seaweed
    catalog: Postgres
    prefect: PrefectServer
    launcher: Launcher
    _numbers: Iterator[int] = field(default_factory=count)

    def server(self, name: str) -> Seaweed | Postgres | PrefectServer:
        return {"s3": self.store, "postgres": self.catalog, "prefect": self.prefect}[name]

    def ground(self) -> Ground:
        """A fresh one."""
        folder = self.folder / f"trial-{next(self._numbers)}"
        (folder / "scratch").mkdir(parents=True)
        return Ground(folder, self.store.url(BUCKET, folder.name), self.catalog.empty_database())

    def migrate(self, ground: Ground) -> Run:
        """Start the documented command."""
        number = len(list(ground.folder.glob("*.out")))
        output, errors = ground.folder / f"{number}.out", ground.folder / f"{number}.err"
        arguments = [
            "migrate",
            "--json",
            "--verbose",
            "--rank",
            "12",
            "--adapter",
            str(self.folder / "adapters"),
        ]
        arguments += ["--source", str(self.folder / "old-llama"), "--target", str(self.folder / "new-gemma")]
        order = {"arguments": arguments, "environment": ground.environment}
        files = {"output": str(output), "errors": str(errors)}
        return Run(self.launcher, int(self.launcher.ask(order | files)["pid"]), output, errors)


def make_fleet(folder: Path) -> None:
    """Two bases of different families; an adapter with an evaluation file, a plain, a wide, a broken one."""
    source = build_pico("llama", folder / "old-llama", layers=3)
    build_pico(
        "gemma3_text", folder / "new-gemma", width=48, layers=4, seed=1, tokenizer="sentencepiece-like"
    )
    adapters = folder / "adapters"
    write_rows(make_adapter(source, adapters / "measured", seed=1))
    make_adapter(source, adapters / "plain", seed=2)
    make_adapter(source, adapters / "wide", seed=4, target_modules="all-linear", use_rslora=True, r=2)
    poison(make_adapter(source, adapters / "broken", seed=3))


@contextmanager
def standing(folder: Path) -> Iterator[Stand]:
    """The servers, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    make_fleet(folder)
    with ExitStack() as stack:
        store = stack.enter_context(running_seaweed(folder / "s3"))
        store.client().create_bucket(Bucket=BUCKET)
        postgres = stack.enter_context(killable_postgres())
        database = postgres.empty_database().replace("psycopg", "asyncpg")
        prefect = stack.enter_context(running_prefect(folder / "prefect", database=database))
        environment = CLEAN | store.environment | prefect.environment
        yield Stand(folder, store, postgres, prefect, stack.enter_context(_launching(folder, environment)))


@contextmanager
def _launching(folder: Path, environment: Mapping[str, str]) -> Iterator[Launcher]:
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    with (folder / "launcher.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.survival.forking"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**environment, **quiet},
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
    try:
        yield Launcher(process)
    finally:
        stop(process)
