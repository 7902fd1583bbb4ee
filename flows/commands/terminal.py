"""The progress of a flow run on the terminal: one bar per stage, on stderr."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["TerminalProgress", "byte_progress"]

_STAGES = {
    "train": "train adapters",
    "cells": "measure cells",
    "factorize": "factorize base weights",
    "align": "align the two bases",
    "map": "map responses of the two bases",
    "sample": "sample from adapted sources",
    "fit": "fit effects",
    "project": "project adapters",
    "publish": "write adapters",
    "measure": "evaluate on the target",
    "validate": "evaluate and judge",
}


@contextmanager
def byte_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Draw a bar of bytes while the block runs; what it gives is told how many more were read."""
    console = Console(stderr=True)
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=32),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda count: progress.advance(bar, count)


class TerminalProgress:
    """Listens to a flow run and draws it; silent when stderr is not a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bars: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> TerminalProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def expect(self, stage: str, count: int) -> None:
        """Make a stage's bar longer by `count`."""
        if not count:
            return
        with self._lock:
            if stage not in self._bars:
                self._bars[stage] = self._progress.add_task(_STAGES.get(stage, stage), total=0)
            bar = self._bars[stage]
            total = self._progress.tasks[self._progress.task_ids.index(bar)].total or 0
            self._progress.update(bar, total=total + count)

    def advance(self, stage: str) -> None:
        """Move a stage's bar by one."""
        with self._lock:
            self._progress.advance(self._bars[stage])
