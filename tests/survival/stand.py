"""The production path on loopback: S3, PostgreSQL and Prefect servers that can be killed, and a pico fleet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.support.fleets import make_adapter, poison, write_rows
from tests.support.pico_models import build_pico
from tests.support.postgres import Postgres, killable_postgres
from tests.support.prefect_server import PrefectServer, running_prefect
from tests.support.seaweed import Seaweed, running_seaweed
from tests.survival.journal import VARIABLE
from tests.survival.launching import Launcher, Run, launching

BUCKET = "survival"
RANK = 12
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

    @property
    def fleet(self) -> dict[str, str]:
        """Folders by what they are to a migration."""
        names = {"source": "old-llama", "target": "new-gemma", "adapter": "adapters"}
        return {role: str(self.folder / name) for role, name in names.items()}

    def migrate(self, ground: Ground) -> Run:
        """Start the documented command."""
        folders = [word for role, folder in self.fleet.items() for word in (f"--{role}", folder)]
        return self.run(
            ground.folder, "cross-lora", "migrate", "--json", "--verbose", "--rank", str(RANK), *folders,
            environment=ground.environment,
        )  # fmt: skip

    def run(
        self, folder: Path, program: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Run:
        """Start a program that the launcher knows; what it says goes to numbered files in the folder."""
        number = len(list(folder.glob("*.out")))
        output, errors = folder / f"{number}.out", folder / f"{number}.err"
        output.touch()
        order = {"program": program, "arguments": arguments, "environment": dict(environment or {})}
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
        yield Stand(folder, store, postgres, prefect, stack.enter_context(launching(folder, environment)))
