from __future__ import annotations

import multiprocessing
import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from cross_lora_core.catalog import Catalog, unchecked
from cross_lora_core.catalog.schema import head_revision
from cross_lora_core.catalog.tables import Table
from cross_lora_core.errors import CatalogSchemaError, CatalogUnavailable, ConfigurationError
from tests.support.rows import a_base


def run(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_tables_and_schema_versions_agree(catalog: Catalog, url: str):
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Table.metadata) == []
    engine.dispose()


@pytest.mark.parametrize(("revision", "remedy"), [("9999", "Install the newer"), (None, "catalog upgrade")])
def test_another_schema_is_refused_with_what_to_do(
    catalog: Catalog, url: str, revision: str | None, remedy: str
):
    catalog.close()
    run(
        url,
        f"UPDATE alembic_version SET version_num = '{revision}'"
        if revision
        else "DELETE FROM alembic_version",
    )
    with pytest.raises(CatalogSchemaError, match=remedy):
        Catalog.open(url)


def test_upgrade_makes_the_tables_and_is_harmless_again(url: str):
    catalog = unchecked(url)
    with pytest.raises(CatalogSchemaError, match="catalog upgrade"):
        catalog.check()
    assert catalog.upgrade() == catalog.upgrade() == head_revision()
    with catalog.begin() as work:
        assert a_base(work).name == "old"
    catalog.close()


def _open(url: str, results) -> None:
    catalog = Catalog.open(url)
    with catalog.begin() as work:
        results.put(a_base(work).id)
    catalog.close()


def test_eight_processes_open_an_empty_database_at_once(url: str):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    openers = [context.Process(target=_open, args=(url, results)) for _ in range(8)]
    for opener in openers:
        opener.start()
    assert len({results.get(timeout=120) for _ in openers}) == 1
    for opener in openers:
        opener.join()
        assert opener.exitcode == 0


def test_a_locked_database_can_be_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("cross_lora_core.catalog.opening._BUSY_MILLISECONDS", 50)
    url = f"sqlite:///{tmp_path / 'c.db'}"
    catalog = Catalog.open(url)
    blocker = sqlite3.connect(tmp_path / "c.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(CatalogUnavailable, match="locked") as caught, catalog.begin() as work:
        a_base(work)
    assert caught.value.retryable
    blocker.close()
    with catalog.begin() as work:
        assert a_base(work).id == 1


def test_a_server_that_is_not_there_can_be_tried_again():
    with pytest.raises(CatalogUnavailable) as caught:
        Catalog.open("postgresql+psycopg://user:s3cret@127.0.0.1:9/none")
    assert "s3cret" not in str(caught.value)


def test_the_password_is_never_in_the_url_shown():
    assert "s3cret" not in unchecked("postgresql+psycopg://user:s3cret@127.0.0.1:9/none").url


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "nosuchdialect://x"])
def test_urls_that_cannot_be_used(url: str):
    with pytest.raises(ConfigurationError, match="CROSS_LORA_CATALOG"):
        Catalog.open(url)
