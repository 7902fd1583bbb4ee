"""How commands speak: one document on stdout, everything else on stderr, fixed exit codes."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cross_lora_core.errors import CrossLoraError

__all__ = [
    "ExitCode",
    "JsonFlag",
    "document",
    "plain",
    "print_table",
    "reporting_errors",
    "say",
    "terminal_width",
    "this_person",
    "verdict_text",
]

_err = Console(stderr=True)

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")
]

_VERDICT_STYLES = {
    "copied": "green",
    "migrated": "green",
    "no_effect": "yellow",
    "unverified": "yellow",
    "harmful": "red",
    "needs_retraining": "yellow",
    "refused": "magenta",
    "failed": "red",
}


class ExitCode(IntEnum):
    """Exit codes of every command; scripts may rely on them."""

    OK = 0
    ERROR = 1
    USAGE = 2
    ADAPTER_REFUSED = 3
    ITEMS_NOT_DONE = 4
    TRY_AGAIN = 5
    INTERRUPTED = 130


def say(text: str) -> None:
    """A line for the person at the terminal, on stderr; wrapped between words there, whole in a file."""
    _err.print(text, highlight=False, soft_wrap=not _err.is_terminal)


def plain(text: str) -> str:
    """A text that is not ours, for `say` and tables: its brackets are no markup."""
    return escape(text)


def this_person() -> str:
    """The user that runs this; a container's user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"user {os.getuid()}"


def terminal_width() -> int:
    """Characters of a line of the terminal; of a file or pipe, as many as are needed."""
    console = Console()
    return console.width if console.is_terminal or "COLUMNS" in os.environ else sys.maxsize


def document(value: Any, as_json: bool, show: Callable[[], None]) -> None:
    """The command's result: JSON on stdout, or a rendering for people."""
    if as_json:
        sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")
    else:
        show()


def verdict_text(verdict: str) -> str:
    """A verdict with its colour, as rich markup."""
    style = _VERDICT_STYLES.get(verdict)
    return f"[bold {style}]{verdict}[/]" if style else verdict


def print_table(
    columns: Mapping[str, Mapping[str, Any]], rows: Sequence[Sequence[str]], title: str = ""
) -> None:
    """Print a table on stdout.

    Args:
        columns: header to options of `rich.table.Table.add_column`.
        rows: cells, rich markup allowed.
        title: printed above.
    """
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for header, options in columns.items():
        table.add_column(header, **options)
    for row in rows:
        table.add_row(*row)
    Console(width=min(terminal_width(), 10_000)).print(table)


@contextmanager
def reporting_errors(as_json: bool) -> Iterator[None]:
    """Turn an error raised on purpose into a message and an exit code."""
    try:
        yield
    except CrossLoraError as error:
        if as_json:
            document({"error": type(error).__name__, "message": str(error)}, True, lambda: None)
        _err.print(
            f"[bold red]{type(error).__name__}[/]: expected {plain(error.expected)}, got {plain(error.got)}",
            highlight=False,
        )
        _err.print(f"  where: {plain(error.where)}", highlight=False)
        _err.print(f"  what to do: {plain(error.remedy)}", highlight=False)
        raise typer.Exit(ExitCode.TRY_AGAIN if error.retryable else ExitCode.ERROR) from error
