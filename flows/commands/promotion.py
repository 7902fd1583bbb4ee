"""`cross-lora promote` and `rollback`: which result serves under an adapter's name."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from flows.commands.output import JsonFlag, document, plain, reporting_errors, say, this_person

__all__ = ["promote", "rollback"]

Adapter = Annotated[str, typer.Argument(help="Name of the adapter")]
Target = Annotated[str, typer.Option("--target", help="The base it serves on")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with who and when")]
Actor = Annotated[str | None, typer.Option("--actor", help="Who; default: the user that runs this")]


def promote(
    adapter: Adapter,
    target: Target,
    reason: Reason = "",
    actor: Actor = None,
    migration: Annotated[
        int | None, typer.Option("--migration", help="Whose result; default: the latest with one")
    ] = None,
    accept: Annotated[
        Literal["no_effect", "harmful", "needs_retraining", "unverified"] | None,
        typer.Option(
            "--accept",
            help="Promote in spite of this verdict; only migrated and copied go without",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Point an adapter's alias on a target at a result."""
    with reporting_errors(as_json):
        from tasks.move_alias import promote_adapter

        moved = promote_adapter(adapter, target, migration, actor or this_person(), reason, accept)
        say(plain(f"{adapter} on {target} → {moved['output']}"))
        document(moved, as_json, lambda: None)


def rollback(
    adapter: Adapter, target: Target, reason: Reason = "", actor: Actor = None, as_json: JsonFlag = False
) -> None:
    """Point an adapter's alias back at the result before."""
    with reporting_errors(as_json):
        from tasks.move_alias import rollback_adapter

        moved = rollback_adapter(adapter, target, actor or this_person(), reason)
        say(plain(f"{adapter} on {target} → {moved['output']}"))
        document(moved, as_json, lambda: None)
