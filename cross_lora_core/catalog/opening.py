"""Open a catalog: connect, check the schema version, hand out units of work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, inspect, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from cross_lora_core.catalog.schema import head_revision, known_revisions, upgrade_schema
from cross_lora_core.catalog.tables import Table
from cross_lora_core.catalog.work import Work
from cross_lora_core.errors import CatalogSchemaError, CatalogUnavailable, ConfigurationError

__all__ = ["Catalog"]

_BUSY_MILLISECONDS = 30_000


class Catalog:
    """A database of bases, adapters, migrations and verdicts.

    with Catalog.open("sqlite:///catalog.db").begin() as work:
        work.add_base(...)
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.url = engine.url.render_as_string(hide_password=True)

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Catalog:
        """Open `sqlite:///file` or `postgresql+psycopg://…`.

        Args:
            url: SQLAlchemy URL.
            create: give an empty database its tables.

        Raises:
            ConfigurationError: the URL cannot be used.
            CatalogUnavailable: the database does not answer.
            CatalogSchemaError: its schema is older or newer than this code.
        """
        catalog = cls(_engine(_parsed(url)))
        with _translating(catalog.url):
            if create and catalog._is_empty():
                upgrade_schema(catalog._engine)
        catalog.check()
        return catalog

    @contextmanager
    def begin(self) -> Iterator[Work]:
        """One unit of work: all of it becomes visible when the block ends, none of it if the block raises.

        Raises:
            CatalogUnavailable: the database does not answer, or stayed locked.
        """
        with _translating(self.url), Session(self._engine) as session, session.begin():
            yield Work(session)

    def check(self) -> str:
        """The schema revision, if it is this code's.

        Raises:
            CatalogSchemaError: it is not.
        """
        with _translating(self.url):
            found = self._revision()
        head = head_revision()
        if found == head:
            return head
        older = found is None or found in known_revisions()
        remedy = (
            "Back the database up, then run `cross-lora catalog upgrade`."
            if older
            else "Install the newer cross-lora-fleet that made it."
        )
        raise CatalogSchemaError(f"schema revision {head}", str(found), self.url, remedy)

    def upgrade(self) -> str:
        """Bring the schema to this code's revision and return it.

        Raises:
            CatalogUnavailable: the database does not answer.
            CatalogSchemaError: the database is newer than this code.
        """
        with _translating(self.url):
            found = self._revision()
            if found is None or found in known_revisions():
                upgrade_schema(self._engine)
        return self.check()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _revision(self) -> str | None:
        with self._engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def _is_empty(self) -> bool:
        return not set(inspect(self._engine).get_table_names()) & set(Table.metadata.tables)


def unchecked(url: str) -> Catalog:
    """A catalog whose schema was not looked at; for `upgrade` and `check` themselves."""
    return Catalog(_engine(_parsed(url)))


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        remedy = "Use sqlite:///file.db or postgresql+psycopg://user@host/database."
        raise ConfigurationError(
            "an SQLAlchemy URL", type(error).__name__, "CROSS_LORA_CATALOG", remedy
        ) from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        remedy = "Use one of the two."
        raise ConfigurationError("sqlite or postgresql", parsed.drivername, "CROSS_LORA_CATALOG", remedy)
    return parsed


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", f"busy_timeout={_BUSY_MILLISECONDS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_sqlite_begin(connection: Any) -> None:
    """A writer that begins by reading could not wait for another writer; IMMEDIATE can."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _translating(url: str) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, Exception) or type(error).__name__ not in (
            "OperationalError",
            "InterfaceError",
        ):
            raise
        raise CatalogUnavailable(
            "an answer",
            str(error.orig).splitlines()[0],
            url,
            "Check that the database runs and can be written; the same command can be run again.",
        ) from error
