"""Schema versions of the catalog, kept by Alembic in `schema_versions/`."""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from cross_lora_core.catalog.turns import begin_turn

__all__ = ["head_revision", "known_revisions", "upgrade_schema"]

_LOCK = 7_305_118
"""Any fixed number: PostgreSQL's advisory lock that lets one process upgrade at a time."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("cross_lora_core.catalog") / "schema_versions"))
    return config


def head_revision() -> str:
    """The revision this code works with."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def known_revisions() -> set[str]:
    """Every revision this code can upgrade from."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def upgrade_schema(engine: Engine) -> None:
    """Bring a database to `head_revision`, one process at a time; a second one finds nothing left to do."""
    with engine.connect() as connection, connection.begin():
        _wait_for_turn(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _wait_for_turn(connection: Connection) -> None:
    """The upgrade's own lock where there is one: other openers wait as long as it takes."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    else:
        begin_turn(connection)
