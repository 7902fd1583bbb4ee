"""What a migration left in the store and the catalog, and what is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, UniqueConstraint, create_engine, func, inspect, select
from sqlalchemy import Table as SqlTable

from cross_lora_core.catalog.tables import EvaluationRow, ItemRow, MigrationRow, Table, VerdictRow
from tests.survival.stand import BUCKET, Ground, Stand

ADAPTER_FILES = {"adapter_config.json", "adapter_model.safetensors", "README.md", "migration.json"}
MARKER = "adapter_config.json"
HISTORY = ("verdicts", "leases")
"""Tables that may hold more than an undisturbed run leaves: earlier verdicts, leases of the killed."""


@dataclass(frozen=True)
class Picture:
    """A ground as it lies there.

    Attributes:
        objects: sha256 of the bytes by key.
        spoiled: keys whose bytes are not the recorded ones.
        uploads: multipart uploads that nobody finished or gave up.
        items: everything known of an item, by adapter name.
        migrations: their statuses.
        rows: how many, by table.
        doubled: tables with two rows of one natural key.
    """

    objects: dict[str, str]
    spoiled: tuple[str, ...]
    uploads: int
    items: dict[str, dict[str, Any]]
    migrations: tuple[str, ...]
    rows: dict[str, int]
    doubled: tuple[str, ...]

    @property
    def half_written(self) -> tuple[str, ...]:
        """Adapter folders a loader would take for whole that are not; spoiled objects anywhere."""
        folders: dict[str, set[str]] = {}
        for key in self.objects:
            folder, _, name = key.rpartition("/")
            if folder.startswith("adapters/"):
                folders.setdefault(folder, set()).add(name)
        partial = [one for one, names in folders.items() if MARKER in names and names != ADAPTER_FILES]
        return (*self.spoiled, *partial)

    @property
    def adapters(self) -> dict[str, str]:
        return {key: sha256 for key, sha256 in self.objects.items() if key.startswith("adapters/")}

    def holds(self, what: str) -> bool:
        """Whether a computation's result, named as the journal names it, is stored."""
        if what.startswith("publish "):
            name = what.removeprefix("publish ")
            return any(key.split("/")[2] == name and key.endswith(MARKER) for key in self.adapters)
        return what in self.objects

    def differs_from(self, undisturbed: Picture) -> list[str]:
        """Every way in which this is not what an undisturbed run leaves; empty if there is none."""
        found = [f"half-written: {one}" for one in self.half_written]
        found += [f"doubled rows in {table}" for table in self.doubled]
        found += [f"{self.uploads} unfinished uploads"] if self.uploads else []
        found += _differences("object", self.objects, undisturbed.objects)
        found += _differences("item", self.items, undisturbed.items)
        found += [f"migration {status}" for status in self.migrations if status != "finished"]
        mine, theirs = (
            {k: v for k, v in one.rows.items() if k not in HISTORY} for one in (self, undisturbed)
        )
        return found + _differences("rows of", mine, theirs)


def _differences(what: str, mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    keys = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    return [f"{what} {key}: {mine.get(key)!r}, undisturbed {theirs.get(key)!r}" for key in keys]


def take(stand: Stand, ground: Ground) -> Picture:
    """Look at a ground with nothing of the project's own code in between."""
    objects, spoiled = {}, []
    client, prefix = stand.store.client(), ground.folder.name + "/"
    for key in _keys(client, prefix):
        found = client.get_object(Bucket=BUCKET, Key=key)
        name, body = key.removeprefix(prefix), found["Body"].read()
        objects[name] = hashlib.sha256(body).hexdigest()
        if objects[name] != found["Metadata"].get("sha256"):
            spoiled.append(name)
    uploads = client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", [])
    engine = create_engine(ground.catalog)
    try:
        with engine.connect() as connection:
            made = "items" in inspect(connection).get_table_names()
            tables = Table.metadata.sorted_tables if made else []
            return Picture(
                objects,
                tuple(spoiled),
                len(uploads),
                dict(_items(connection, ground)) if tables else {},
                tuple(connection.scalars(select(MigrationRow.status))) if tables else (),
                {one.name: _count(connection, one) for one in tables},
                tuple(one.name for one in tables if any(_doubled(connection, one))),
            )
    finally:
        engine.dispose()


def _keys(client: Any, prefix: str) -> Iterator[str]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        yield from (one["Key"] for one in page.get("Contents", []))


def _count(connection: Connection, table: SqlTable) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _doubled(connection: Connection, table: SqlTable) -> Iterable[Any]:
    """Asked of the table itself: an index that broke would not tell."""
    connection.exec_driver_sql("SET LOCAL enable_indexscan = off")
    connection.exec_driver_sql("SET LOCAL enable_indexonlyscan = off")
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            grouped = select(*constraint.columns).group_by(*constraint.columns).having(func.count() > 1)
            yield from connection.execute(grouped)


def _items(connection: Connection, ground: Ground) -> Iterator[tuple[str, dict[str, Any]]]:
    """Item rows with their latest verdict's evidence; places of this ground taken out."""
    for row in connection.execute(select(ItemRow.__table__)).mappings():
        chosen = select(VerdictRow.__table__).where(VerdictRow.item_id == row["id"])
        verdict = connection.execute(chosen.order_by(VerdictRow.created_at.desc())).mappings().first()
        told = ("status", "verdict", "reason", "modules_expected", "modules_landed", "output_sha256")
        item = {name: row[name] for name in told}
        item["output"] = (row["output"] or "").partition(f"/{ground.folder.name}/")[2]
        item["evidence"] = verdict["evidence"] if verdict else None
        yield row["adapter_name"], item


def evaluations(picture: Picture) -> int:
    """How many measurements the catalog keeps."""
    return picture.rows.get(EvaluationRow.__tablename__, 0)
