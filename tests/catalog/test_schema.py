from __future__ import annotations

import multiprocessing
import sqlite3

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cross_lora_core.catalog import Catalog, unchecked
from cross_lora_core.catalog.database_errors import translating
from cross_lora_core.catalog.schema import _config, head_revision, known_revisions
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


def test_every_earlier_schema_is_brought_up_to_date_with_its_rows(url: str):
    for revision in sorted(known_revisions()):
        engine = create_engine(url)
        with engine.begin() as connection:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            context = MigrationContext.configure(connection)
            assert context.get_current_revision() == revision
            if revision == "0001":
                row = "('b', 's', 0, 0, 1, 'k', 'x', 9, 8, 1.5, '2026-01-01')"
                names = (
                    "base_digest, spec, group_index, first_layer, last_layer, store_key, sha256, size_bytes"
                )
                insert = f"INSERT INTO factor_sets ({names}, rank, seconds, created_at) VALUES {row}"
                connection.execute(text(insert))
                row = "('b', '', 'd', 'float32', 2, 1.5, '[1.0, 2.0]', '2026-01-01')"
                names = (
                    "base_digest, adapter_digest, dataset_digest, dtype, rows, mean_loss, losses, created_at"
                )
                connection.execute(text(f"INSERT INTO evaluations ({names}) VALUES {row}"))
        engine.dispose()
    catalog = Catalog.open(url)
    with catalog.begin() as work:
        (kept,) = work.factor_sets_of("b")
        assert (kept.store_key, kept.seconds) == ("k", 1.5)
        measured = work.evaluation("b", "", "d", "float32", "", "loss")
        assert measured is not None
        assert (measured.mean, measured.by_row) == (1.5, [1.0, 2.0])
        assert work.evaluation("b", "", "d", "float32", "cpu", "loss") is None
        assert work.evaluation("b", "", "d", "float32", "", "exact match") is None
    catalog.close()
    test_tables_and_schema_versions_agree(catalog, url)


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
    for url in ("user:s3cret@127.0.0.1:9/none", "user@127.0.0.1:9/none?password=s3cret"):
        assert "s3cret" not in unchecked(f"postgresql+psycopg://{url}").url


def test_a_locked_server_can_be_tried_again(postgres_url: str, monkeypatch):
    monkeypatch.setattr("cross_lora_core.catalog.turns._PATIENCE", "50ms")
    catalog, other = Catalog.open(postgres_url), Catalog.open(postgres_url)
    with catalog.begin() as work:
        a_base(work)
        with pytest.raises(CatalogUnavailable, match="lock timeout"), other.begin() as second:
            a_base(second, "another")
    with other.begin() as work:
        assert [one.name for one in work.bases()] == ["old"]
    for one in (catalog, other):
        one.close()


def test_no_free_connection_can_be_tried_again():
    with pytest.raises(CatalogUnavailable), translating("x"):
        raise PoolTimeoutError


def test_what_is_no_trouble_of_the_database_passes_as_it_is():
    with pytest.raises(ProgrammingError), translating("x"):
        raise ProgrammingError("SELECT", {}, Exception('relation "x" does not exist'))


def test_a_database_that_is_not_there_has_to_be_made(postgres_url: str):
    with pytest.raises(ConfigurationError, match="createdb"):
        Catalog.open(postgres_url + "_absent")


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "c.db").write_bytes(b"x" * 4096)
    with pytest.raises(ConfigurationError, match="not a database"):
        Catalog.open(f"sqlite:///{tmp_path / 'c.db'}")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="write permission"):
        Catalog.open(f"sqlite:///{tmp_path / 'file' / 'below' / 'c.db'}")


def test_the_database_of_another_application_is_left_alone(url: str):
    run(url, "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
    run(url, "INSERT INTO alembic_version VALUES ('deadbeef')")
    with pytest.raises(CatalogSchemaError, match="database of its own"):
        Catalog.open(url)
    catalog = unchecked(url)
    with pytest.raises(CatalogSchemaError, match="database of its own"):
        catalog.upgrade()
    catalog.close()


def test_an_interrupted_first_opening_leaves_the_database_empty(url: str, monkeypatch):
    real = command.upgrade

    def interrupted(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("cross_lora_core.catalog.schema.command.upgrade", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Catalog.open(url)
    with pytest.raises(CatalogSchemaError, match="catalog upgrade"):
        Catalog.open(url, create=False)
    catalog = Catalog.open(url)
    with catalog.begin() as work:
        assert a_base(work).id == 1
    catalog.close()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file.db?timeout=abc",
        "sqlite://user:s3cret@host/x",
        "nonsense",
        "mysql://user:s3cret@x/y",
        "nosuchdialect://x",
        "sqlite+aiosqlite:///file.db",
        "postgresql+asyncpg://user:s3cret@127.0.0.1:9/none",
        "postgresql+psycopg://user:s3cret@127.0.0.1:port/none",
        "postgresql+psycopg://user:s3cret@127.0.0.1:99999/none",
        "postgresql+psycopg://127.0.0.1:9/none?password=s3cret&no_such_option=1",
        "postgresql+psycopg://127.0.0.1:9/none?password=s3cret&sslmode=wrong",
    ],
)
def test_urls_that_cannot_be_used(url: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="CROSS_LORA_CATALOG") as caught:
        Catalog.open(url)
    assert "s3cret" not in str(caught.value)
    assert not list(tmp_path.iterdir())
