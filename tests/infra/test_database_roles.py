"""The application's role of `infra/sql` does everything the catalog's own tests do, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError

from cross_lora_core.catalog import Catalog, unchecked
from cross_lora_core.catalog.tables import Table
from cross_lora_core.errors import ConfigurationError
from tests.catalog.test_leases import *  # noqa: F403
from tests.catalog.test_promotions import *  # noqa: F403  run again below, as the application's role
from tests.catalog.test_starts_and_deliveries import *  # noqa: F403
from tests.catalog.test_work import *  # noqa: F403
from tests.support.catalog_roles import SQL, Roles, make_roles, run_sql
from tests.support.postgres import find_binary, running_postgres, why_not

pytestmark = pytest.mark.services
TABLES = ", ".join(sorted(Table.metadata.tables))


@pytest.fixture(scope="module")
def roles() -> Iterator[Roles]:
    reason = why_not() or ("" if find_binary("psql") else "no psql on this machine")
    if reason:
        pytest.skip(reason)
    with running_postgres() as server:
        made = make_roles(server)
        with pytest.raises(ConfigurationError, match="permission denied"):
            Catalog.open(made.app)  # the application's role makes no tables
        unchecked(made.owner).upgrade()
        for _again in range(2):
            run_sql("catalog_grants.sql", made.owner)
        yield made


@pytest.fixture
def url(roles: Roles) -> str:
    """Of the application's role, on empty tables."""
    engine = create_engine(roles.owner)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {TABLES} RESTART IDENTITY"))
    engine.dispose()
    return roles.app


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    opened = Catalog.open(url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def app(roles: Roles) -> Iterator[Engine]:
    engine = create_engine(roles.app)
    yield engine
    engine.dispose()


def privileges(app: Engine, table: str) -> set[str]:
    asked = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
    with app.connect() as connection:
        check = text("SELECT has_table_privilege(:table, :privilege)")
        return {
            one for one in asked if connection.execute(check, {"table": table, "privilege": one}).scalar_one()
        }


ADDED = {"SELECT", "INSERT"}
USED = {
    "adapters": ADDED | {"UPDATE"},
    "bases": ADDED | {"UPDATE"},
    "deliveries": ADDED | {"UPDATE"},
    "evaluations": ADDED,
    "factor_sets": ADDED,
    "items": ADDED | {"UPDATE"},
    "leases": ADDED | {"UPDATE", "DELETE"},
    "measures": ADDED,
    "migrations": ADDED | {"UPDATE"},
    "promotions": ADDED,
    "starts": ADDED | {"UPDATE"},
    "verdicts": ADDED | {"UPDATE"},
}


@pytest.mark.parametrize("table", sorted(Table.metadata.tables))
def test_every_table_is_granted_as_its_rows_are_used(app: Engine, table: str) -> None:
    """A new table needs a line in catalog_grants.sql, and here."""
    assert privileges(app, table) == USED[table]


def test_the_schema_version_can_only_be_read(app: Engine) -> None:
    assert privileges(app, "alembic_version") == {"SELECT"}


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE items",
        "ALTER TABLE items ADD COLUMN more integer",
        "TRUNCATE promotions",
        "DELETE FROM promotions",
        "UPDATE promotions SET actor = 'nobody'",
        "UPDATE factor_sets SET sha256 = 'other'",
        "DELETE FROM items",
        "UPDATE alembic_version SET version_num = '9999'",
        "CREATE TABLE mine (x integer)",
        "CREATE SCHEMA mine",
        "CREATE TEMPORARY TABLE mine (x integer)",
        "CREATE ROLE other",
        "CREATE DATABASE other",
        "SET ROLE cross_lora_owner",
        "ALTER ROLE cross_lora_owner PASSWORD 'mine'",
        "COPY items TO PROGRAM 'id'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT rolpassword FROM pg_authid",
    ],
)
def test_what_the_application_must_not_do_is_denied(app: Engine, statement: str) -> None:
    engine = app.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, pytest.raises(ProgrammingError) as caught:
        connection.execute(text(statement))
    assert isinstance(caught.value.orig, InsufficientPrivilege)


def test_nobody_else_gets_in(roles: Roles) -> None:
    """A role of the same server, Prefect's for example, cannot read the catalog."""
    engine = create_engine(roles.superuser, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE stranger LOGIN PASSWORD 'stranger'"))
    engine.dispose()
    stranger = roles.app.replace("cross_lora_app:4pp-pass-word", "stranger:stranger")
    with pytest.raises(ConfigurationError, match="permission denied for database"):
        Catalog.open(stranger)


def test_the_owner_is_no_superuser(roles: Roles) -> None:
    engine = create_engine(roles.owner)
    with engine.connect() as connection:
        row = connection.execute(
            text(
                "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname = current_user"
            )
        ).one()
    engine.dispose()
    assert not any(row)


def test_passwords_come_from_the_environment_alone() -> None:
    for file in SQL.glob("*.sql"):
        assert "PASSWORD '" not in file.read_text().upper()
