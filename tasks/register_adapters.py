"""Register adapters in the catalog and list them; what the command line calls, without a flow."""

from __future__ import annotations

from typing import Any

from cross_lora_core.adapters import check_adapter, read_adapter
from cross_lora_core.catalog import AdapterRecord
from cross_lora_core.evaluation import read_rows
from cross_lora_core.migration import EVALUATION_FILE, find_base, register_base
from cross_lora_core.storage import Folder, absolute_location, open_folder
from tasks.runtime import open_catalog

__all__ = ["list_registered", "register_adapters"]


def register_adapters(
    locations: list[str], base: str, owner: str | None, evaluation: str | None
) -> list[dict[str, Any]]:
    """Check each adapter against its base and register those that can be moved.

    Args:
        locations: adapter folders, paths or s3:// URLs.
        base: name, folder, s3:// URL or hub id of their base.
        owner: kept with each.
        evaluation: path or s3:// URL of a file for all of them; by default the `evaluation.jsonl` inside
            each folder, if any.

    Returns:
        What `adapter check` says of each, with its name.

    Raises:
        ConfigurationError: an evaluation file cannot be read.
    """
    with open_catalog().begin() as work:
        opened = find_base(work, base)
        record = register_base(work, opened)
    results = []
    for folder in map(open_folder, locations):
        found = check_adapter(folder.location, opened)
        results.append({"name": folder.name, "location": folder.location} | found.as_dict())
        if found.status == "refused":
            continue
        file = _evaluation(folder, evaluation)
        rows = read_rows(file) if file else ()
        adapter = read_adapter(folder.location)
        with open_catalog().begin() as work:
            work.add_adapter(
                name=folder.name,
                digest=adapter.digest,
                base_id=record.id,
                location=folder.location,
                origin="registered",
                rank=found.rank or 0,
                scaling=found.scaling,
                variant=found.variant,
                owner=owner,
                evaluation=file if rows else None,
            )
    return results


def _evaluation(folder: Folder, named: str | None) -> str | None:
    if named is not None:
        return absolute_location(named)
    return folder.file_location(EVALUATION_FILE) if folder.has(EVALUATION_FILE) else None


def list_registered(base: str | None, unmigrated_to: str | None) -> list[tuple[str, AdapterRecord]]:
    """Adapters with the names of their bases.

    Raises:
        RecordNotFound: a base is not registered.
    """
    with open_catalog().begin() as work:
        names = {one.id: one.name for one in work.bases()}
        chosen = list(names) if base is None else [work.registered_base(base).id]
        target = work.registered_base(unmigrated_to).id if unmigrated_to else None
        return [
            (names[base_id], record)
            for base_id in chosen
            for record in (work.unmigrated_adapters(base_id, target) if target else work.adapters_on(base_id))
        ]
