"""`cross-lora sweep`: start what deprecated bases need, now."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from flows.commands.output import ExitCode, JsonFlag, document, plain, print_table, reporting_errors, say

__all__ = ["sweep"]


def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is due, and start nothing")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Start the migrations of deprecated bases that are due; without a server they run here, one by one.

    A base is due when its date has come, it has a successor and there are adapters on it that nobody has
    moved or found out about. Running it again, or twice at once, starts nothing twice. Exits 4 when
    something broke; what did not was started.
    """
    with reporting_errors(as_json):
        from cross_lora_core.settings import load_settings
        from flows.embedded import configure_prefect

        configure_prefect(load_settings(), verbose=False)
        rows, complete = (_due(), True) if dry_run else _swept()
        document(rows, as_json, lambda: _show(rows))
    if not complete:
        raise typer.Exit(ExitCode.ITEMS_NOT_DONE)


def _due() -> list[dict[str, Any]]:
    from cross_lora_core.registry import load_config
    from cross_lora_core.settings import load_settings
    from tasks.due_migrations import due_pairs

    options = load_config(load_settings().webhook_config).migration
    return [asdict(one) | {"state": "due", "flow_run": None, "reason": ""} for one in due_pairs(options)]


def _swept() -> tuple[list[dict[str, Any]], bool]:
    """What the sweep started, and whether nothing broke."""
    from flows.outages import telling_outages

    with telling_outages():
        state, started = _run()
    if state.is_failed():
        say(f"[red]not all of it[/]: {plain(state.message)}")
    return [asdict(one) for one in started], not state.is_failed()


def _run() -> tuple[Any, Any]:
    """The flow run's state, and what was started even where that was not all."""
    from flows.sweep_deprecated import sweep_deprecated

    state: Any = sweep_deprecated(return_state=True)
    found = state.result(raise_on_failure=False)
    if isinstance(found, BaseException):
        raise found
    return state, found


def _show(rows: list[dict[str, Any]]) -> None:
    if not rows:
        say("nothing is due")
        return
    cells = [[row["source"], row["target"], str(len(row["adapters"])), row["state"]] for row in rows]
    print_table({"base": {}, "successor": {}, "adapters": {"justify": "right"}, "": {}}, cells)
