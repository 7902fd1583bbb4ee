"""`cross-lora`: the command line.

Commands live in `flows.commands`; each imports what it needs when it runs, so
that `--help` answers at once.
"""

from __future__ import annotations

import os

import typer

from flows.commands import (
    adapter,
    base,
    catalog,
    deploy,
    evaluation,
    experiment,
    migration,
    promotion,
    sweep,
    webhook,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="cross-lora",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Move a fleet of LoRA adapters from a deprecated base model to its successor, without data or "
    "retraining, and prove for each one what survived.",
    epilog="Exit codes: 0 done · 1 error, the message says what to do · 2 wrong usage · 3 adapter refused "
    "(adapter check, adapter add) · 4 some adapters were refused or failed · 5 a service did not answer, "
    "try again · 130 interrupted, the same command resumes. Settings are environment variables CROSS_LORA_*.",
)
app.add_typer(base.app, name="base")
app.add_typer(adapter.app, name="adapter")
app.add_typer(catalog.app, name="catalog")
app.add_typer(webhook.app, name="webhook")
app.add_typer(experiment.app, name="experiment")
app.command("plan")(migration.plan)
app.command("migrate")(migration.migrate)
app.command("status")(migration.status)
app.command("report")(migration.report)
app.command("evaluate")(evaluation.evaluate)
app.command("sweep")(sweep.sweep)
app.command("promote")(promotion.promote)
app.command("rollback")(promotion.rollback)
app.command("deploy")(deploy.deploy)


def main() -> None:
    """Entry point of the `cross-lora` script. Prefect's usage data is not sent unless the user wants it."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    app()


if __name__ == "__main__":
    main()
