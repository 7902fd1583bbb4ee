"""Note, in a file that outlives the process, every computation of a migration as it begins and ends."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "SURVIVAL_JOURNAL"


@dataclass(frozen=True)
class Entry:
    """One line: when, which process, `begin` or `end`, and what is computed."""

    at: float
    process: int
    event: str
    what: str


def install() -> None:
    """Watch the places where a migration computes, in this process, into the file the environment names.

    What is stored under a key is noted by its key, an adapter that is assembled by its name, an evaluation as such.
    """
    import tasks.evaluate_adapter
    import tasks.project_adapter
    import tasks.publish_adapter
    import tasks.sharing

    for module in (tasks.sharing, tasks.project_adapter):
        module.put_once = _noting_what_is_written(module.put_once)
    write_adapter, row_losses = tasks.publish_adapter.write_adapter, tasks.evaluate_adapter.row_losses
    tasks.publish_adapter.write_adapter = lambda *arguments, **options: _noting(
        f"publish {options['provenance']['adapter']}", write_adapter
    )(*arguments, **options)
    tasks.evaluate_adapter.row_losses = _noting("evaluate", row_losses)


def _noting_what_is_written(put_once: Callable[..., Any]) -> Callable[..., Any]:
    return lambda key, write, **options: put_once(key, _noting(key, write), **options)


def _noting(what: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*arguments: Any, **options: Any) -> Any:
        _note("begin", what)
        result = compute(*arguments, **options)
        _note("end", what)
        return result

    return noted


def _note(event: str, what: str) -> None:
    line = f"{time.time():.6f} {os.getpid()} {event} {what}\n"
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read(path: Path) -> list[Entry]:
    """What was noted so far."""
    if not path.exists():
        return []
    lines = [line.split(" ", 3) for line in path.read_text().splitlines()]
    return [Entry(float(at), int(process), event, what) for at, process, event, what in lines]


def begun(entries: list[Entry]) -> Counter[str]:
    """How often each computation was begun."""
    return Counter(entry.what for entry in entries if entry.event == "begin")
