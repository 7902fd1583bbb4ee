"""Note, in a file that outlives the process, every computation of a migration as it begins and ends."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
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

    put_once, carrier = tasks.sharing.put_once, tasks.project_adapter._Carrier
    tasks.sharing.put_once = lambda key, write, **options: put_once(key, _noting([key], write), **options)
    carrier.__call__ = _noting_what_is_carried(carrier.__call__)
    write_adapter, row_losses = tasks.publish_adapter.write_adapter, tasks.evaluate_adapter.row_losses
    tasks.publish_adapter.write_adapter = lambda *arguments, **options: _noting(
        [f"publish {options['provenance']['adapter']}"], write_adapter
    )(*arguments, **options)
    tasks.evaluate_adapter.row_losses = _noting(["evaluate"], row_losses)


def _noting_what_is_carried(carry: Callable[..., Any]) -> Callable[..., Any]:
    """One task run computes its own projection, and those of neighbours that it takes along."""
    from tasks.project_adapter import _key

    def noted(self: Any, items: Sequence[Any]) -> Any:
        keys = [_key(self.source, one, self.group, self.spec) for one in items]
        return _noting(keys, carry)(self, items)

    return noted


def _noting(what: Sequence[str], compute: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*arguments: Any, **options: Any) -> Any:
        for one in what:
            _note("begin", one)
        result = compute(*arguments, **options)
        for one in what:
            _note("end", one)
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
