"""From what people write (names, folders, s3:// URLs, hub ids) to opened bases and adapters to be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cross_lora_core.catalog import AdapterRecord, BaseRecord, Work
from cross_lora_core.errors import ConfigurationError, RecordConflict
from cross_lora_core.migration.refs import AdapterCandidate
from cross_lora_core.models import BaseModel, open_base
from cross_lora_core.storage import Folder, Store, open_folder

__all__ = ["EVALUATION_FILE", "find_adapters", "find_base", "register_base"]

EVALUATION_FILE = "evaluation.jsonl"
"""Looked for in an adapter's folder when no other file was named."""


def find_base(work: Work, text: str, shared: Store | None = None) -> BaseModel:
    """Open a base by its name in the catalog, its folder, here or on S3, or its hub id.

    Args:
        work: the catalog.
        text: what somebody wrote.
        shared: store in which the digests of bases on S3 are remembered for all machines.

    Raises:
        RecordConflict: the folder of a registered base holds other content now.
        BaseModelError: it is none of these, or cannot be used.
    """
    record = work.base_named(text)
    if record is None:
        base = open_base(text, shared=shared)
        known = work.base_with_digest(base.digest)
        if known is None:
            return base
        return open_base(text, name=known.name, revision=known.revision, shared=shared)
    base = open_base(record.location, name=record.name, revision=record.revision, shared=shared)
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
        location=base.location,
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
        texts: names in the catalog, paths or s3:// URLs.
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
    folder = open_folder(text)
    below = folder.folders()
    if not below and not folder.names():
        raise ConfigurationError(
            "an adapter's folder, a folder of such, or a registered name",
            repr(text),
            "--adapter",
            "`cross-lora adapter list` shows the registered ones.",
        )
    inside = [one for one in below if one.has("adapter_config.json")]
    alone = folder.has("adapter_config.json") or not inside
    return [_in_folder(one) for one in ([folder] if alone else inside)]


def _in_folder(folder: Folder) -> AdapterCandidate:
    evaluation = folder.file_location(EVALUATION_FILE) if folder.has(EVALUATION_FILE) else None
    return AdapterCandidate(folder.name, folder.location, evaluation)


def _registered(record: AdapterRecord) -> AdapterCandidate:
    return AdapterCandidate(record.name, record.location, record.evaluation, record.owner)
