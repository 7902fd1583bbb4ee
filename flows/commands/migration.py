"""`cross-lora plan`, `migrate`, `status` and `report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.commands.output import (
    ExitCode,
    JsonFlag,
    document,
    plain,
    print_table,
    reporting_errors,
    say,
    this_person,
    verdict_text,
)

if TYPE_CHECKING:
    from cross_lora_core.migration import CandidateOutcome, ItemOutcome, MigrationOutcome, MigrationRequest

__all__ = ["MethodName", "migrate", "plan", "report", "status"]

Source = Annotated[
    str, typer.Option("--source", help="The deprecated base: name, folder, s3:// URL or hub id")
]
Targets = Annotated[list[str], typer.Option("--target", help="A base to move to; may be given several times")]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        help="Adapter folder or folder of such, here or on S3, or registered name; default: all registered",
    ),
]
MethodName = Literal[
    "auto", "effect", "refine", "cross-lora", "probe", "copy", "interpolate", "subspace", "subspace+null"
]
MethodOption = Annotated[
    MethodName,
    typer.Option("--method", help="How updates are carried over; auto tries several and takes the best"),
]
Rank = Annotated[int, typer.Option("--rank", min=1, help="Singular vectors kept per base weight")]
Anchor = Annotated[
    Literal["tokens", "index"],
    typer.Option("--anchor", help="Pair singular vectors by shared tokens, or by index as published"),
]
OutputRank = Annotated[
    int | None, typer.Option("--output-rank", min=1, help="Rank written; default: smallest servable")
]
OutputDtype = Annotated[
    Literal["float16", "bfloat16", "float32"], typer.Option("--output-dtype", help="Precision written")
]
Refine = Annotated[
    bool,
    typer.Option("--refine/--no-refine", help="Let auto try distillation, which trains, as its last method"),
]
RefineSteps = Annotated[int, typer.Option("--refine-steps", min=1, help="Training steps of method refine")]
RefineSeconds = Annotated[
    float, typer.Option("--refine-seconds", min=1.0, help="Seconds after which refine stops training")
]
Evaluation = Annotated[
    str | None, typer.Option("--evaluation", help="JSON lines for adapters that have no evaluation file")
]


def _request(
    source: str, target: list[str], adapter: list[str] | None, evaluation: str | None, **options: Any
) -> MigrationRequest:
    from cross_lora_core.migration import MigrationRequest
    from cross_lora_core.storage import absolute_location

    return MigrationRequest.model_validate(
        {
            "source": source,
            "targets": target,
            "adapters": adapter or [],
            "evaluation": absolute_location(evaluation) if evaluation else None,
            "requested_by": this_person(),
            **options,
        }
    )


def plan(
    source: Source,
    target: Targets,
    adapter: Adapters = None,
    method: MethodOption = "cross-lora",
    rank: Rank = 320,
    anchor: Anchor = "tokens",
    output_rank: OutputRank = None,
    output_dtype: OutputDtype = "float16",
    refine: Refine = False,
    refine_steps: RefineSteps = 150,
    refine_seconds: RefineSeconds = 900.0,
    evaluation: Evaluation = None,
    as_json: JsonFlag = False,
) -> None:
    """Dry run: what would land, what would not and why, bytes and time. Writes nothing."""
    with reporting_errors(as_json):
        from tasks.estimate_plan import describe_plan

        request = _request(
            source, target, adapter, evaluation,
            method=method, rank=rank, anchor=anchor, output_rank=output_rank, output_dtype=output_dtype,
            refine=refine, refine_steps=refine_steps, refine_seconds=refine_seconds,
        )  # fmt: skip
        described = describe_plan(request)
        document(described, as_json, lambda: _show_plan(described))


def _show_plan(described: dict[str, Any]) -> None:
    rows = [
        [
            plain(item["adapter"]),
            plain(item["target"]),
            "[magenta]refused[/]" if item["refusal"] else f"{item['modules']} modules",
            str(len(item["skipped"])),
            "–" if item["refusal"] else f"{item['output_bytes'] / 2**20:.1f} MB",
            "yes" if item["evaluation"] else "no",
        ]
        for item in described["items"]
    ]
    columns: dict[str, dict[str, Any]] = {"adapter": {"overflow": "fold"}, "target": {"overflow": "fold"}}
    columns |= {"lands": {"no_wrap": True}, "skipped": {"justify": "right"}}
    columns |= {"output": {"justify": "right", "no_wrap": True}, "measured": {}}
    print_table(columns, rows)
    say("")
    for item in described["items"]:
        for remark in [item["refusal"]] if item["refusal"] else _remarks(item):
            say(f"[bold]{plain(item['adapter'])}[/] → {plain(item['target'])}: {plain(remark)}")
    cost = described["estimate"]
    say(
        f"\nto compute: {cost['factor_bytes'] / 2**20:.0f} MB of base factors, "
        f"{cost['alignment_bytes'] / 2**20:.0f} MB of alignments\n"
        f"            about {cost['seconds']:.0f} s on one worker, evaluation not counted"
    )
    if cost["untimed"]:
        methods = ", ".join(cost["untimed"])
        say(f"            not estimated: {methods}, which run both bases for minutes per adapter or pair")
    say(
        f"to reuse:   {cost['reused']} stored layer groups\n"
        f"to write:   {cost['output_bytes'] / 2**20:.1f} MB of adapters"
    )


def _remarks(item: dict[str, Any]) -> list[str]:
    left_out = [f"{one['method']} is not tried: {one['reason']}" for one in item["left_out"]]
    tried = [f"tries {', '.join(item['rungs'])}"] if left_out or len(item["rungs"]) > 1 else []
    return [*tried, *left_out, *item["skipped_summary"]]


def migrate(
    source: Source,
    target: Targets,
    adapter: Adapters = None,
    method: MethodOption = "cross-lora",
    rank: Rank = 320,
    anchor: Anchor = "tokens",
    output_rank: OutputRank = None,
    output_dtype: OutputDtype = "float16",
    refine: Refine = False,
    refine_steps: RefineSteps = 150,
    refine_seconds: RefineSeconds = 900.0,
    evaluation: Evaluation = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log lines")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Move adapters to other bases, measure each on its target, and say honestly what survived.

    Running the same command again resumes, or finds everything done. Exits 4 when an adapter was
    refused or failed.
    """
    with reporting_errors(as_json):
        from cross_lora_core.settings import load_settings
        from flows.embedded import configure_prefect

        request = _request(
            source, target, adapter, evaluation,
            method=method, rank=rank, anchor=anchor, output_rank=output_rank, output_dtype=output_dtype,
            refine=refine, refine_steps=refine_steps, refine_seconds=refine_seconds,
        )  # fmt: skip
        embedded = configure_prefect(load_settings(), verbose=verbose)
        say(
            f"migrating {source} → {', '.join(target)} with {method}"
            + (" (Prefect in-process)" if embedded else "")
        )
        outcome = _run(request)
        document(outcome.as_dict(), as_json, lambda: show_outcome(outcome))
    if not outcome.complete:
        raise typer.Exit(ExitCode.ITEMS_NOT_DONE)


def _run(request: MigrationRequest) -> MigrationOutcome:
    from flows.commands.terminal import TerminalProgress
    from flows.interrupts import noticing_interrupts
    from flows.migrate_fleet import migrate_fleet
    from flows.outages import telling_outages
    from flows.progress import listening

    try:
        with noticing_interrupts(), telling_outages(), TerminalProgress() as progress, listening(progress):
            return migrate_fleet(request)
    except KeyboardInterrupt:
        say("[yellow]interrupted[/]; nothing is lost: the same command resumes where this one stopped")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def show_outcome(outcome: MigrationOutcome) -> None:
    """Print the verdict table, where the adapters are and where the report is."""
    targets = dict.fromkeys(plain(one.target) for one in outcome.items)
    title = f"Migration {outcome.migration}: {outcome.source} → {', '.join(targets)}, method {outcome.method}"
    _print_columns([_cells(one, outcome) for one in outcome.items], title)
    say("")
    _show_candidates(outcome)
    for one in outcome.items:
        say(f"[bold]{plain(one.adapter)}[/] → {plain(one.target)}: {plain(one.reason)}")
    say(
        "\nimprovement: fall of the loss against the target base, nats per character\n"
        "random:      the same with a random update of the same size\n"
        "recovered:   improvement as a share of what the adapter gains on its own base"
    )
    folders = sorted({one.output.rsplit("/", 2)[0] for one in outcome.items if one.output})
    for folder in folders:
        say(f"adapters:    {folder}")
    if outcome.report:
        say(f"report:      {outcome.report}")


def _cells(one: ItemOutcome, outcome: MigrationOutcome) -> dict[str, str]:
    """A row by header; what is the same in every row is in the title, `random` beside each method tried."""
    figures = _figures(one)
    if outcome.method == "auto":
        figures = {"method": one.method or "–"} | figures
        del figures["random"]
    return (
        {"adapter": plain(one.adapter)}
        | ({"target": plain(one.target)} if _several_targets(outcome) else {})
        | {"verdict": verdict_text(one.verdict), "modules": f"{one.modules_landed} of {one.modules_expected}"}
        | figures
    )


def _several_targets(outcome: MigrationOutcome) -> bool:
    return len({one.target for one in outcome.items}) > 1


def _figures(one: ItemOutcome | CandidateOutcome) -> dict[str, str]:
    return {
        "improvement": "–" if one.improvement is None else f"{one.improvement:+.4f}",
        "random": "–" if one.random is None else f"{one.random:+.4f}",
        "recovered": "–" if one.recovered is None else f"{one.recovered:+.1%}",
    }


def _print_columns(rows: Sequence[Mapping[str, str]], title: str = "") -> None:
    """A table of rows with the same headers; names fold where the terminal is narrow, figures never."""
    columns: dict[str, dict[str, Any]] = {
        header: {"overflow": "fold"} if header in ("adapter", "target") else {"no_wrap": True}
        for header in (rows[0] if rows else ())
    }
    for header in columns.keys() & {"modules", "improvement", "random", "recovered"}:
        columns[header]["justify"] = "right"
    print_table(columns, [list(row.values()) for row in rows], title=title)


def _show_candidates(outcome: MigrationOutcome) -> None:
    """What each method did for each adapter, where several were tried."""
    rows = [
        {"adapter": plain(one.adapter)}
        | ({"target": plain(one.target)} if _several_targets(outcome) else {})
        | {"tried": tried.method, "alone": verdict_text(tried.verdict)}
        | _figures(tried)
        for one in outcome.items
        for tried in one.candidates
        if len(one.candidates) > 1
    ]
    if rows:
        _print_columns(rows)
        say("")


def status(
    migration: Annotated[
        int | None, typer.Argument(help="Number of a migration; default: the latest")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what became of a migration's items, and where aliases point."""
    with reporting_errors(as_json):
        from tasks.show_status import migration_status

        outcome, state = migration_status(migration)
        document(outcome.as_dict() | state, as_json, lambda: _show_status(outcome, state))


def _show_status(outcome: MigrationOutcome, state: dict[str, Any]) -> None:
    say(f"status: {state['status']}, started {state['started_at']:%Y-%m-%d %H:%M:%S} UTC")
    show_outcome(outcome)
    for one in state["promoted"]:
        say(
            f"promoted: {one['adapter']} on {one['target']} → item {one['item']} "
            f"by {one['actor']}: {one['reason']}"
        )


def report(
    migration: Annotated[
        int | None, typer.Argument(help="Number of a migration; default: the latest")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a migration's report as one HTML page and say where it is."""
    with reporting_errors(as_json):
        from tasks.report_migration import gather_report, write_report
        from tasks.show_status import chosen_migration

        chosen = chosen_migration(migration)
        gathered = gather_report(chosen)
        path = write_report(gathered, output)
        if as_json and not gathered.detailed:
            gathered = gather_report(chosen, whole=True)
        document(asdict(gathered) | {"path": str(path)}, as_json, lambda: typer.echo(str(path)))
