"""Command-line processes of the project, forked from one that has imported everything; they can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.servers import is_running, kill_all, stop, with_descendants

ROOT = Path(__file__).parents[2]


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


@contextmanager
def launching(folder: Path, environment: Mapping[str, str]) -> Iterator[Launcher]:
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "TOKENIZERS_PARALLELISM": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
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
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        yield Launcher(process)
    finally:
        stop(process)
