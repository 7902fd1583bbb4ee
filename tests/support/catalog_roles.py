"""The catalog's database and roles as `infra/sql` makes them, on a throwaway server that asks for passwords."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from tests.support.postgres import find_binary

SQL = Path(__file__).parents[2] / "infra" / "sql"
OWNER_PASSWORD, APP_PASSWORD = "0wner-pass-word", "4pp-pass-word"


@dataclass(frozen=True)
class Roles:
    """SQLAlchemy URLs of the same database."""

    superuser: str
    owner: str
    app: str


def run_sql(file: str, url: str, **environment: str) -> None:
    psql = find_binary("psql")
    assert psql is not None
    where = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    command = [psql, "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={SQL / file}", where]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def make_roles(server: str) -> Roles:
    """Run what an operator runs once, on a server that is still empty."""
    ask_for_passwords(server)
    run_sql(
        "catalog_roles.sql",
        f"{server}/postgres",
        CATALOG_OWNER_PASSWORD=OWNER_PASSWORD,
        CATALOG_APP_PASSWORD=APP_PASSWORD,
    )
    database = make_url(server).set(database="cross_lora")
    owner = database.set(username="cross_lora_owner", password=OWNER_PASSWORD)
    app = database.set(username="cross_lora_app", password=APP_PASSWORD)
    return Roles(*(one.render_as_string(hide_password=False) for one in (database, owner, app)))


def ask_for_passwords(server: str) -> None:
    """The test's superuser comes in as it is; everybody else needs a password."""
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        rules = Path(connection.execute(text("SHOW hba_file")).scalar_one())
        rules.write_text(
            f"host all {make_url(server).username} 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()
