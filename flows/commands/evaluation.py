"""`cross-lora evaluate`: what a base does on rows, and what adapters change about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.output import JsonFlag, document, plain, print_table, reporting_errors, say

if TYPE_CHECKING:
    from cross_lora_core.evaluation import Figures, GapRecovered, Interval, Mean
    from tasks.compare_adapters import ComparedAdapter, Comparison

__all__ = ["evaluate"]


def evaluate(
    base: Annotated[str, typer.Option("--base", help="Name, folder, s3:// URL or hub id")],
    rows: Annotated[
        str, typer.Option("--rows", help="JSON lines of prompt and completion, or of question and choices")
    ],
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", help="Folder, folder of such, or name registered on the base; repeatable"),
    ] = None,
    trained: Annotated[
        str | None,
        typer.Option("--trained", help="An adapter trained on this base: the gap that others may recover"),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use the first rows only")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a base, and adapters beside it, on a file of rows; what was measured is not run again."""
    with reporting_errors(as_json):
        from tasks.compare_adapters import compare_adapters

        def tell(name: str) -> None:
            say(f"measuring {plain(name)} …")

        found = compare_adapters(base, adapter or [], rows, limit=limit, trained=trained, tell=tell)
        document(asdict(found), as_json, lambda: _show(found))


def _show(found: Comparison) -> None:
    columns: dict[str, dict[str, Any]] = {"adapter": {"overflow": "fold"}}
    columns |= {name: {"justify": "right", "no_wrap": True} for name in _columns(found)}
    rows = [[_name(one), *_columns(found, one.figures).values()] for one in found.results]
    print_table(columns, rows, title=f"{plain(found.base)} on {found.rows} rows of {plain(found.rows_file)}")
    say("\nloss:        nats per character, with its standard error")
    if len(found.results) > 1:
        level = f"{100 * found.confidence:g} %"
        say(f"improvement: fall of the loss against the base alone, with its {level} interval")
    for one in found.results:
        if one.trained:
            say(f"gap:         what {_name(one)}, trained on this base, gains")
        if one.figures.gap is not None and one.figures.gap.reason:
            say(f"[bold]{_name(one)}[/]: no share of the gap: {plain(one.figures.gap.reason)}")


def _name(one: ComparedAdapter) -> str:
    if one.adapter is None:
        return "[dim]none[/]"
    return plain(one.adapter)


def _columns(found: Comparison, one: Figures | None = None) -> dict[str, str]:
    """Cells by header; accuracy only of rows with choices, the gap only beside a trained adapter."""
    one = one or found.results[0].figures
    cells = {"loss": _mean(one.loss)}
    if one.accuracy is not None:
        cells |= {"accuracy": _percent(one.accuracy), "by length": _percent(one.normalised_accuracy)}
    if len(found.results) > 1:
        cells["improvement"] = _interval(one.improvement)
    if any(other.trained for other in found.results):
        cells["gap recovered"] = _share(one.gap)
    return cells


def _mean(one: Mean) -> str:
    return f"{one.mean:.4f}" + ("" if one.standard_error is None else f" ± {one.standard_error:.4f}")


def _percent(one: Mean | None) -> str:
    if one is None:
        return "–"
    error = "" if one.standard_error is None else f" ± {100 * one.standard_error:.1f}"
    return f"{100 * one.mean:.1f}{error} %"


def _interval(one: Interval | None) -> str:
    return "–" if one is None else f"{one.mean:+.4f}\n{one.low:+.4f} … {one.high:+.4f}"


def _share(gap: GapRecovered | None) -> str:
    if gap is None or gap.share is None:
        return "–"
    return f"{gap.share.mean:+.1%}\n{gap.share.low:+.1%} … {gap.share.high:+.1%}"
