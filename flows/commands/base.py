"""`cross-lora base`: which base models there are, and which are being retired."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from flows.commands.output import JsonFlag, document, print_table, reporting_errors, say

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Base models: register, list, deprecate.")


@app.command("add")
def add(
    locations: Annotated[
        list[str],
        typer.Argument(help="Folders with config.json and safetensors, their s3:// URLs, or hub ids"),
    ],
    name: Annotated[str | None, typer.Option(help="Name in the catalog; default: the folder's name")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag of a hub id")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Register base models. The first time, every byte is read once to compute the digest."""
    with reporting_errors(as_json):
        from cross_lora_core.errors import ConfigurationError
        from cross_lora_core.migration import register_base
        from cross_lora_core.models import open_base
        from cross_lora_core.storage import check_location
        from flows.commands.terminal import byte_progress
        from tasks.runtime import open_catalog

        if name is not None and len(locations) > 1:
            raise ConfigurationError(
                "one location with --name", str(len(locations)), "base add", "Add one by one."
            )
        records = []
        for location in locations:
            check_location(location)
            say(f"reading {location} …")
            base = open_base(location, name=name, revision=revision)
            with byte_progress("reading", base.stored_bytes) as advance:
                base.read_digest(advance)  # before the catalog is locked: this reads every byte
            with open_catalog().begin() as work:
                records.append(register_base(work, base))
            shape = f"{base.layers} layers of {base.d_model}"
            say(f"  {base.name}: {base.family}, {shape}, digest {base.digest[:12]}")
        document([asdict(one) for one in records], as_json, lambda: None)


@app.command("list")
def list_bases(as_json: JsonFlag = False) -> None:
    """List base models with their adapters, status and successor."""
    with reporting_errors(as_json):
        from tasks.runtime import open_catalog

        with open_catalog().begin() as work:
            bases = work.bases()
            counts = {one.id: len(work.adapters_on(one.id)) for one in bases}
        names = {one.id: one.name for one in bases}
        rows = [
            asdict(one) | {"adapters": counts[one.id], "successor": names.get(one.successor_id or 0)}
            for one in bases
        ]
        columns = ("name", "family", "layers", "d_model", "status", "deprecated_on", "successor", "adapters")
        document(
            rows,
            as_json,
            lambda: print_table(
                {column: {} for column in columns},
                [
                    [str(row[column] if row[column] is not None else "–") for column in columns]
                    for row in rows
                ],
            ),
        )


@app.command("deprecate")
def deprecate(
    name: Annotated[str, typer.Argument(help="A registered base")],
    on: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="End of life; default: at once")
    ] = None,
    successor: Annotated[str | None, typer.Option(help="The registered base its adapters move to")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Mark a base as deprecated, with its end of life and successor."""
    with reporting_errors(as_json):
        from tasks.runtime import open_catalog

        with open_catalog().begin() as work:
            record = work.deprecate_base(name, on=on.date() if on else None, successor=successor)
            adapters = work.adapters_on(record.id)
        when = f"on {record.deprecated_on}" if record.deprecated_on else "now"
        say(f"{name} is deprecated {when}; {len(adapters)} registered adapters depend on it")
        document(asdict(record), as_json, lambda: None)
