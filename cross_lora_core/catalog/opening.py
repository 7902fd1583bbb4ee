"""Open a catalog: connect, check the schema version, hand out units of work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, inspect, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from cross_lora_core.catalog.database_errors import translating
from cross_lora_core.catalog.schema import head_revision, known_revisions, upgrade_schema
from cross_lora_core.catalog.tables import Table
from cross_lora_core.catalog.turns import take_turn_before_flush
from cross_lora_core.catalog.work import Work
from cross_lora_core.errors import CatalogSchemaError, ConfigurationError

__all__ = ["Catalog", "unchecked"]

_BUSY_MILLISECONDS = 30_000
_CONNECT_SECONDS = 10
_DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")


class Catalog:
    """A database of bases, adapters, migrations and verdicts.

    with Catalog.open("sqlite:///catalog.db").begin() as work:
        work.add_base(...)
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.url = engine.url.set(query={}).render_as_string(hide_password=True)

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
        with translating(catalog.url):
            if create and catalog._is_empty() and catalog._revision() is None:
                upgrade_schema(catalog._engine)
        catalog.check()
        return catalog

    @contextmanager
    def begin(self) -> Iterator[Work]:
        """One unit of work: all of it becomes visible when the block ends, none of it if the block raises.

        It waits for other writers at its first change, and never while it only reads; so do what takes
        long before the first change.

        Raises:
            CatalogUnavailable: the database does not answer, or stayed locked.
        """
        with translating(self.url), Session(self._engine) as session, session.begin():
            take_turn_before_flush(session)
            yield Work(session)

    def check(self) -> str:
        """The schema revision, if it is this code's.

        Raises:
            CatalogSchemaError: it is not.
        """
        with translating(self.url):
            found = self._revision()
        head = head_revision()
        if found == head:
            return head
        raise CatalogSchemaError(f"schema revision {head}", str(found), self.url, self._remedy(found))

    def _remedy(self, found: str | None) -> str:
        if found is None or found in known_revisions():
            return "Back the database up, then run `cross-lora catalog upgrade`."
        with translating(self.url):
            foreign = self._is_empty()
        if foreign:
            return "Another application keeps its tables there: give the catalog a database of its own."
        return "Install the newer cross-lora-fleet that made it."

    def upgrade(self) -> str:
        """Bring the schema to this code's revision and return it.

        Raises:
            CatalogUnavailable: the database does not answer.
            CatalogSchemaError: the database is newer than this code.
        """
        with translating(self.url):
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
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise _refused("an SQLAlchemy URL", type(error).__name__) from None
    if "@" in f"{parsed.host}{parsed.database}":  # the end of a password, which errors would repeat
        raise _refused("a password with %40 for @ and %2F for /", "a second @")
    if parsed.drivername not in _DRIVERS:
        raise _refused(f"a URL of {' or '.join(_DRIVERS)}", repr(parsed.drivername))
    if parsed.get_backend_name() == "sqlite" and (parsed.host or parsed.username or parsed.query):
        raise _refused("a file alone, sqlite:///relative.db or sqlite:////absolute.db", "a host or options")
    return parsed


def _refused(expected: str, got: str) -> ConfigurationError:
    remedy = "Use sqlite:///file.db or postgresql+psycopg://user@host/database."
    return ConfigurationError(expected, got, "CROSS_LORA_CATALOG", remedy)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        patience = {} if "connect_timeout" in url.query else {"connect_timeout": _CONNECT_SECONDS}
        return create_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED", connect_args=patience)
    if not url.database or url.database == ":memory:":
        remedy = "Use sqlite:///file.db; a catalog in memory would be another one in each thread."
        raise ConfigurationError("a database file", "none", "CROSS_LORA_CATALOG", remedy)
    _make_parent(Path(url.database))
    engine = create_engine(url)
    event.listen(engine, "connect", _on_sqlite_connect)
    return engine


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "Give this user write permission, or correct CROSS_LORA_CATALOG."
        raise ConfigurationError(
            "a folder that can be made", str(error.strerror), str(path.parent), remedy
        ) from error


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # `begin_turn` says BEGIN itself; until then each query sees the latest
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={_BUSY_MILLISECONDS}", "journal_mode=WAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
