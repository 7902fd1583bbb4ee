"""`cross-lora catalog`: the schema of the database."""

from __future__ import annotations

import typer

from flows.commands.output import JsonFlag, document, reporting_errors, say

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The catalog's database: check and upgrade its schema.")


@app.command("check")
def check(as_json: JsonFlag = False) -> None:
    """Say whether the database has this version's schema."""
    _run("check", as_json)


@app.command("upgrade")
def upgrade(as_json: JsonFlag = False) -> None:
    """Bring the database to this version's schema; back it up first."""
    _run("upgrade", as_json)


def _run(what: str, as_json: bool) -> None:
    with reporting_errors(as_json):
        from cross_lora_core.catalog import unchecked
        from cross_lora_core.settings import load_settings

        catalog = unchecked(load_settings().catalog_url)
        revision = catalog.upgrade() if what == "upgrade" else catalog.check()
        say(f"{catalog.url} has schema revision {revision}")
        document({"catalog": catalog.url, "revision": revision}, as_json, lambda: None)
