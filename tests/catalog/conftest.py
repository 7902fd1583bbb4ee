"""One catalog per test, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from cross_lora_core.catalog import Catalog
from tests.support.postgres import running_postgres, why_not

_numbers = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with running_postgres() as url:
        yield url


def empty_database(server: str) -> str:
    name = f"catalog_{next(_numbers)}"
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{server}/{name}"


@pytest.fixture(params=[pytest.param("postgresql", marks=pytest.mark.services)])
def postgres_url(postgres: str) -> str:
    """Of an empty database, for what only a server can do."""
    return empty_database(postgres)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalog.db'}"
    return empty_database(request.getfixturevalue("postgres"))


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    opened = Catalog.open(url)
    yield opened
    opened.close()
