"""`cross-lora adapter`: can it be moved, and which adapters depend on which base?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from flows.commands.output import ExitCode, JsonFlag, document, plain, print_table, reporting_errors, say

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="LoRA adapters: check, register, list.")
BaseOption = Annotated[
    str | None, typer.Option("--base", help="The base it was trained on: name, folder, s3:// URL or hub id")
]


@app.command("check")
def check(
    path: Annotated[str, typer.Argument(help="Folder that PEFT's save_pretrained wrote, or its s3:// URL")],
    base: BaseOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say whether an adapter can be moved, and what of it cannot. Exits 3 if it is refused."""
    with reporting_errors(as_json):
        from cross_lora_core.adapters import check_adapter
        from cross_lora_core.migration import find_base
        from tasks.runtime import open_catalog

        opened = None
        if base is not None:
            with open_catalog().begin() as work:
                opened = find_base(work, base)
        found = check_adapter(path, opened)
        document(found.as_dict(), as_json, lambda: _show_check(path, found.as_dict()))
    if found.status == "refused":
        raise typer.Exit(ExitCode.ADAPTER_REFUSED)


def _show_check(path: str, found: dict[str, Any]) -> None:
    colour = {"ok": "green", "partial": "yellow", "refused": "red"}[found["status"]]
    rows = [["status", f"[bold {colour}]{found['status']}[/]"], ["adapter", path]]
    rows += [
        [name, str(found[name])] for name in ("base", "variant", "rank", "scaling") if found[name] is not None
    ]
    if found["modules"]:
        rows += [["modules", f"{found['usable']} of {found['modules']} can be moved"]]
    rows += [["reason", plain(found["reason"])]] if found["reason"] else []
    print_table({"": {"style": "dim"}, " ": {"overflow": "fold"}}, rows)


@app.command("add")
def add(
    paths: Annotated[list[str], typer.Argument(help="Adapter folders, or their s3:// URLs")],
    base: Annotated[str, typer.Option("--base", help="The base they were trained on")],
    owner: Annotated[str | None, typer.Option(help="Who to ask about them")] = None,
    evaluation: Annotated[
        str | None,
        typer.Option(help="JSON-lines file of prompt and completion; default: evaluation.jsonl inside"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Register adapters on their base. Exits 3 if one was refused; the others are added."""
    with reporting_errors(as_json):
        from tasks.register_adapters import register_adapters

        results = register_adapters(paths, base, owner, evaluation)
        for one in results:
            say(plain(f"  {one['name']}: {one['status']}" + (f" ({one['reason']})" if one["reason"] else "")))
        document(results, as_json, lambda: None)
    if any(one["status"] == "refused" for one in results):
        raise typer.Exit(ExitCode.ADAPTER_REFUSED)


@app.command("list")
def list_adapters(
    base: BaseOption = None,
    unmigrated_to: Annotated[
        str | None, typer.Option(help="Only those without a good result on this base")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List registered adapters, for example those that die with a base."""
    with reporting_errors(as_json):
        from tasks.register_adapters import list_registered

        rows = [asdict(record) | {"base": name} for name, record in list_registered(base, unmigrated_to)]
        columns = ("name", "base", "variant", "rank", "owner", "evaluation")
        document(
            rows,
            as_json,
            lambda: print_table(
                {column: {"overflow": "fold"} for column in columns},
                [[_cell(column, row[column]) for column in columns] for row in rows],
            ),
        )


def _cell(column: str, value: Any) -> str:
    if column == "evaluation":
        return "yes" if value else "no"
    return "–" if value is None else str(value)
