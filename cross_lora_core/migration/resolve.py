"""From what people write (names, folders, hub ids) to opened bases and adapters to be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cross_lora_core.catalog import AdapterRecord, BaseRecord, Work
from cross_lora_core.errors import ConfigurationError, RecordConflict
from cross_lora_core.migration.plan import AdapterCandidate
from cross_lora_core.models import BaseModel, open_base

__all__ = ["EVALUATION_FILE", "find_adapters", "find_base", "register_base"]

EVALUATION_FILE = "evaluation.jsonl"
"""Looked for in an adapter's folder when no other file was named."""


def find_base(work: Work, text: str) -> BaseModel:
    """Open a base by its name in the catalog, its folder, or its hub id.

    Raises:
        RecordConflict: the folder of a registered base holds other content now.
        BaseModelError: it is none of the three, or cannot be used.
    """
    record = work.base_named(text)
    if record is None:
        base = open_base(text)
        known = work.base_with_digest(base.digest)
        return base if known is None else open_base(text, name=known.name, revision=known.revision)
    base = open_base(record.location, name=record.name, revision=record.revision)
    if base.digest != record.digest:
        raise RecordConflict(
            f"base {text!r} with digest {record.digest[:12]}, as it was registered",
            f"digest {base.digest[:12]}",
            record.location,
            "Restore the folder, or register the changed base under another name.",
        )
    return base


def register_base(work: Work, base: BaseModel) -> BaseRecord:
    """The base's row, made if need be.

    Raises:
        RecordConflict: its name belongs to other content.
    """
    return work.add_base(
        name=base.name,
        digest=base.digest,
        location=str(base.location.absolute()),
        family=base.family,
        layers=base.layers,
        d_model=base.d_model,
        revision=base.revision,
    )


def find_adapters(
    work: Work, source: str, texts: Sequence[str], evaluation: str | None
) -> list[AdapterCandidate]:
    """The adapters meant: named ones, folders, folders of folders; all registered ones if none is named.

    Args:
        work: the catalog.
        source: name of the base they are on, which need not be registered.
        texts: names in the catalog, or paths.
        evaluation: file for those that have none of their own.

    Raises:
        ConfigurationError: a text is neither, or there is nothing to migrate.
    """
    record = work.base_named(source)
    if texts:
        found = [one for text in texts for one in _meant(work, record, text)]
    else:
        found = [_registered(one) for one in work.adapters_on(record.id)] if record else []
    if not found:
        raise ConfigurationError(
            f"adapters registered on {source}",
            "none",
            "the catalog",
            "Register some with `cross-lora adapter add`, or name folders with --adapter.",
        )
    distinct = {one.location: one for one in found}
    return [
        AdapterCandidate(one.name, one.location, one.evaluation or evaluation, one.owner)
        for one in distinct.values()
    ]


def _meant(work: Work, source: BaseRecord | None, text: str) -> Iterable[AdapterCandidate]:
    record = work.adapter_named(text, source.id) if source else None
    if record is not None:
        return [_registered(record)]
    folder = Path(text).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigurationError(
            "an adapter's folder, a folder of such, or a registered name",
            repr(text),
            "--adapter",
            "`cross-lora adapter list` shows the registered ones.",
        )
    inside = sorted(path.parent for path in folder.glob("*/adapter_config.json"))
    alone = (folder / "adapter_config.json").exists() or not inside
    return [_in_folder(one) for one in ([folder] if alone else inside)]


def _in_folder(folder: Path) -> AdapterCandidate:
    file = folder / EVALUATION_FILE
    return AdapterCandidate(folder.name, str(folder), str(file) if file.is_file() else None)


def _registered(record: AdapterRecord) -> AdapterCandidate:
    return AdapterCandidate(record.name, record.location, record.evaluation, record.owner)
