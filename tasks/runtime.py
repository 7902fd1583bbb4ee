"""What every task opens from settings: the store, the catalog, bases; and how tasks retry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from cross_lora_core.adapters import Adapter, local_adapter, read_adapter
from cross_lora_core.catalog import Catalog
from cross_lora_core.errors import CrossLoraError, FinalError, ObjectCorrupted, ObjectExists, ObjectNotFound
from cross_lora_core.migration import AdapterRef, BaseRef
from cross_lora_core.models import BaseModel, open_base
from cross_lora_core.settings import load_settings
from cross_lora_core.storage import Store, StoredObject, open_store

__all__ = ["TASK_OPTIONS", "open_catalog", "open_ref", "open_stored", "put_new", "put_once", "read_ref"]


def _is_retryable(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    if isinstance(error, CrossLoraError):
        return error.retryable
    return isinstance(error, ConnectionError | TimeoutError)


TASK_OPTIONS: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _is_retryable,
    "persist_result": False,
    "cache_policy": NO_CACHE,
}
"""Retry what may succeed later, and nothing else. Results are small references: the store is the cache."""


@lru_cache(maxsize=4)
def _store(url: str) -> Store:
    return open_store(url)


def open_stored() -> Store:
    """The store of the settings; opened once per process."""
    return _store(load_settings().store_url)


@lru_cache(maxsize=4)
def _catalog(url: str) -> Catalog:
    return Catalog.open(url, create=True)


def open_catalog() -> Catalog:
    """The catalog of the settings; opened once per process."""
    return _catalog(load_settings().catalog_url)


@lru_cache(maxsize=16)
def open_ref(ref: BaseRef) -> BaseModel:
    """Open the base a reference stands for, and check that it is still the same.

    Raises:
        FinalError: the folder's content is not what the migration was planned with.
    """
    base = open_base(ref.location, name=ref.name, revision=ref.revision, shared=open_stored())
    if base.digest != ref.digest:
        raise FinalError(
            f"the base that was planned with, digest {ref.digest[:12]}",
            f"digest {base.digest[:12]}",
            ref.location,
            "Restore the folder, or register the changed base under another name and plan again.",
        )
    return base


def read_ref(ref: AdapterRef) -> Adapter:
    """Read the adapter a reference stands for, and check that it is still the same.

    One on S3 is read from this machine's copy of it, which all its processes share, and from S3 itself
    only where that is not the right one.

    Raises:
        FinalError: its content is not what the migration was planned with.
    """
    for location in (_copy_of(ref), ref.location):
        adapter = read_adapter(location, name=ref.name)
        if adapter.digest == ref.digest:
            return replace(adapter, location=ref.location)
    raise FinalError(
        f"the adapter that was planned with, digest {ref.digest[:12]}",
        f"digest {adapter.digest[:12]}",
        ref.location,
        "Restore the folder, or run the migration again: it then plans with the adapter as it is.",
    )


def _copy_of(ref: AdapterRef) -> str | Path:
    try:
        return local_adapter(ref.location, ref.digest)
    except ObjectCorrupted:  # another adapter lies there now, perhaps
        return ref.location


def put_once(key: str, write: Callable[[Path], None], *, durable: bool = True) -> StoredObject:
    """Store what `write` produces under a key that its inputs decide, unless it is there.

    A second worker that computed the same thing at the same time may differ in
    the last bit; the first one's object stands and is used by both.

    Args:
        key: of the object.
        write: writes it to a path.
        durable: as for `Store.put`. What is not, and was there before, is verified first, and made anew
            where a loss of power has spoiled it.
    """
    store = open_stored()
    found = store.stat(key)
    if found is not None and (durable or store.always_durable or _is_whole(key)):
        return found
    return put_new(key, write, durable=durable)


def put_new(key: str, write: Callable[[Path], None], *, durable: bool = True) -> StoredObject:
    """The same for a key that was not there a moment ago: nobody looks again, and who was first stands."""
    store = open_stored()
    with store.workspace() as folder:
        path = folder / "object"
        write(path)
        try:
            return store.put(key, path, durable=durable)
        except ObjectExists:
            found = store.stat(key)
            if found is None:
                raise
            return found


def _is_whole(key: str) -> bool:
    """Whether an object's bytes are the ones that were put; it is removed if they are not."""
    try:
        open_stored().fetch(key)
    except ObjectNotFound:
        return False
    except ObjectCorrupted:
        open_stored().delete(key)
        return False
    return True
