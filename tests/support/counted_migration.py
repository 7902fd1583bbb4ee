"""Run one migration in a process of its own, noting what it computes itself and what it waits for.

Usage: python -m tests.support.counted_migration REQUEST.json COUNTS.txt

Whatever it computes first it holds until a second process with the same counts has asked for something too.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import tasks.align_bases
import tasks.factorize_base
import tasks.sharing
from cross_lora_core.migration import MigrationRequest
from flows.migrate_fleet import migrate_fleet


def note(counts: Path, what: str) -> None:
    with counts.open("a") as file:
        file.write(f"{os.getpid()} {what}\n")


def note_computing(module: Any, name: str, counts: Path) -> None:
    real = getattr(module, name)

    def noting(*arguments: Any) -> Any:
        note(counts, name)
        wait_for_the_other(counts)
        return real(*arguments)

    setattr(module, name, noting)


def note_waiting(counts: Path) -> None:
    real = tasks.sharing._taken

    def noting(key: str, holder: str) -> bool:
        taken = real(key, holder)
        if not taken:
            note(counts, "waits")
        return taken

    tasks.sharing._taken = noting


def wait_for_the_other(counts: Path) -> None:
    deadline = time.monotonic() + 200
    while len({line.split()[0] for line in counts.read_text().splitlines()}) < 2:
        assert time.monotonic() < deadline, "the other process never came"
        time.sleep(0.05)


if __name__ == "__main__":
    request, counts = Path(sys.argv[1]), Path(sys.argv[2])
    note_computing(tasks.factorize_base, "factorize_layers", counts)
    note_computing(tasks.align_bases, "align_landings", counts)
    note_waiting(counts)
    outcome = migrate_fleet(MigrationRequest.model_validate_json(request.read_text()))
    sys.exit(0 if outcome.complete else 4)
