"""`cross-lora experiment`: run an experiment file, show its tables, render them with plots."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.output import (
    ExitCode,
    JsonFlag,
    document,
    plain,
    print_table,
    reporting_errors,
    say,
    terminal_width,
)

if TYPE_CHECKING:
    from cross_lora_core.experiments import Table
    from flows.run_experiment import ExperimentOutcome

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Train, move by every method, measure and tabulate, as an experiment file says.",
)

ExperimentFile = Annotated[Path, typer.Argument(metavar="FILE", help="An experiment file in TOML")]


@app.command()
def run(
    file: ExperimentFile,
    cell: Annotated[
        str, typer.Option("--cell", help="Pattern of cells, as in 'transferred/*/iso-dates/*/effect'")
    ] = "*",
    force: Annotated[
        bool, typer.Option("--force", help="Run the chosen cells even if they are done; stored work is found")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's own log lines")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure every cell that is not in the results file yet; run again, it resumes."""
    with reporting_errors(as_json):
        from cross_lora_core.settings import load_settings
        from flows.embedded import configure_prefect

        configure_prefect(load_settings(), verbose=verbose)
        outcome = _run(file, cell, force)
        document(asdict(outcome), as_json, lambda: _show_outcome(outcome))
        if outcome.failures:
            raise typer.Exit(ExitCode.ITEMS_NOT_DONE)


def _run(file: Path, cell: str, force: bool) -> ExperimentOutcome:
    from flows.commands.terminal import TerminalProgress
    from flows.interrupts import noticing_interrupts
    from flows.outages import telling_outages
    from flows.progress import listening
    from flows.run_experiment import run_experiment

    try:
        with noticing_interrupts(), telling_outages(), TerminalProgress() as progress, listening(progress):
            return run_experiment(str(file), cell, force)
    except KeyboardInterrupt:
        say("[yellow]interrupted[/]; nothing is lost: the same command resumes where this one stopped")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _show_outcome(outcome: ExperimentOutcome) -> None:
    say(
        f"[bold]{plain(outcome.experiment)}[/]: {outcome.measured} cells measured, "
        f"{outcome.refused} refused, {len(outcome.failures)} failed, {outcome.found} done before"
    )
    for name, reason in outcome.failures.items():
        say(f"[red]failed[/] {plain(name)}: {plain(reason)}")
    say(f"results: {plain(outcome.results)}")


@app.command()
def show(file: ExperimentFile, as_json: JsonFlag = False) -> None:
    """Print the tables of what was measured so far."""
    with reporting_errors(as_json):
        from tasks.render_experiment import tables_so_far

        tables = tables_so_far(file)
        document([asdict(one) for one in tables], as_json, lambda: _show_tables(tables))


def _show_tables(tables: tuple[Table, ...]) -> None:
    """Every table that fits; one that does not is shown a figure a line, or left to a wider terminal."""
    width = terminal_width()
    too_wide = []
    for table in tables:
        shown = table if table.width <= width else table.narrow()
        if shown.width > width:
            too_wide.append(table.title)
            continue
        columns: dict[str, dict[str, str]] = {header: {} for header in shown.headers}
        print_table(columns, [[plain(cell) for cell in row] for row in shown.rows], title=plain(shown.title))
        say(f"[dim]{plain(shown.note)}[/]\n")
    if too_wide:
        say(f"wider than {width} characters, see `experiment render` or --json: {plain('; '.join(too_wide))}")


@app.command()
def render(
    file: ExperimentFile,
    out: Annotated[Path, typer.Option("--out", help="Folder; one below it is made for the experiment")],
    as_json: JsonFlag = False,
) -> None:
    """Write the tables as Markdown and the plots as SVG, and say where."""
    with reporting_errors(as_json):
        from tasks.render_experiment import render_experiment

        written = render_experiment(file, out)
        document([str(one) for one in written], as_json, lambda: typer.echo("\n".join(map(str, written))))
