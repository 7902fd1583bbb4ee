"""`cross-lora evaluate`: what a base does on rows, and what adapters change about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.commands.output import JsonFlag, document, plain, print_table, reporting_errors, say

if TYPE_CHECKING:
    from cross_lora_core.evaluation import GapRecovered, Interval, Mean, Score
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
    generate: Annotated[
        bool,
        typer.Option("--generate", help="Let the model write each completion, too, and count matches; slow"),
    ] = False,
    benchmark: Annotated[
        Literal["arc_challenge", "arc_easy", "hellaswag", "openbookqa"] | None,
        typer.Option("--benchmark", help="Put the rows as this benchmark does, and score by lm-eval, too"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a base, and adapters beside it, on a file of rows; what was measured is not run again."""
    with reporting_errors(as_json):
        from tasks.compare_adapters import compare_adapters

        def tell(name: str) -> None:
            say(f"measuring {plain(name)} …")

        found = compare_adapters(
            base,
            adapter or [],
            rows,
            limit=limit,
            trained=trained,
            generate=generate,
            benchmark=benchmark,
            tell=tell,
        )
        document(asdict(found), as_json, lambda: _show(found))


def _show(found: Comparison) -> None:
    several, gap = len(found.results) > 1, any(one.trained for one in found.results)
    headers = ["measure", "value", *(["improvement"] if several else []), *(["gap recovered"] if gap else [])]
    columns: dict[str, dict[str, Any]] = {"adapter": {"overflow": "fold"}}
    columns |= {name: {"justify": "right", "no_wrap": True} for name in headers}
    columns["measure"] = {"no_wrap": True}
    rows = [[_name(one), *line][: len(columns)] for one in found.results for line in _lines(one)]
    print_table(columns, rows, title=f"{plain(found.base)} on {found.rows} rows of {plain(found.rows_file)}")
    _explain(found)


def _explain(found: Comparison) -> None:
    say("\nvalue:       loss in nats per character, or share of rows that are right; with its standard error")
    if len(found.results) > 1:
        level = f"{100 * found.confidence:g} %"
        say(f"improvement: fall of the loss, or rise of the share, against the base alone; {level} interval")
    for one in found.results:
        if one.trained:
            say(f"gap:         what {_name(one)}, trained on this base, gains")
        for measure, gap in _gaps(one):
            if gap.reason:
                say(f"[bold]{_name(one)}[/]: no share of the gap in {measure}: {plain(gap.reason)}")


def _name(one: ComparedAdapter) -> str:
    if one.adapter is None:
        return "[dim]none[/]"
    return plain(one.adapter)


def _lines(one: ComparedAdapter) -> list[list[str]]:
    """What was measured, its value, the improvement and the share of the gap, as text."""
    figures = one.figures
    loss = ["loss", _mean(figures.loss), _interval(figures.improvement, "+.4f"), _share(figures.gap)]
    scores = [
        [measure, _percent(score), _interval(score.improvement, "+.1%"), _share(score.gap)]
        for measure, score in _scores(one)
    ]
    return [loss, *scores]


def _scores(one: ComparedAdapter) -> list[tuple[str, Score]]:
    """Scores by name: accuracy only of rows with choices, exact match only where texts were generated."""
    found = {
        "accuracy": one.figures.accuracy,
        "by length": one.figures.normalised_accuracy,
        "exact match": one.exact_match,
    }
    found |= {f"lm-eval {metric}": score for metric, score in one.benchmark.items()}
    return [(measure, score) for measure, score in found.items() if score is not None]


def _gaps(one: ComparedAdapter) -> list[tuple[str, GapRecovered]]:
    found = {"loss": one.figures.gap} | {measure: score.gap for measure, score in _scores(one)}
    return [(measure, gap) for measure, gap in found.items() if gap is not None]


def _mean(one: Mean) -> str:
    return f"{one.mean:.4f}" + ("" if one.standard_error is None else f" ± {one.standard_error:.4f}")


def _percent(one: Mean) -> str:
    error = "" if one.standard_error is None else f" ± {100 * one.standard_error:.1f}"
    return f"{100 * one.mean:.1f}{error} %"


def _interval(one: Interval | None, form: str) -> str:
    return "–" if one is None else f"{one.mean:{form}}\n{one.low:{form}} … {one.high:{form}}"


def _share(gap: GapRecovered | None) -> str:
    return _interval(gap.share if gap else None, "+.1%")
