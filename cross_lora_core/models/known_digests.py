"""Digests that were computed before, so that a base is read whole once and not again while its files stay.

On this machine they are kept by place, size and time of the files. Those of bases on S3 are
also put into the store, by place, size and ETag, where workers on other machines find them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cross_lora_core.errors import ObjectNotFound, StoreUnavailable
from cross_lora_core.models import digest
from cross_lora_core.models.checkpoint import Checkpoint
from cross_lora_core.models.digest import Content, outline_of
from cross_lora_core.storage import Store

__all__ = ["default_cache_folder", "known_content"]

_VERSION = 2
_SETTLED_SECONDS = 2.0
_Record = dict[str, Any]


def known_content(
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    cache_folder: Path | None,
    shared: Store | None,
    on_bytes: Callable[[int], None] | None = None,
) -> Content:
    """The content of a base, read only if one of its files changed since it was last asked for.

    The first reading is taken as it comes: it decides the digest. What is read later must agree with
    it block by block, so bytes that were spoiled then or are spoiled now are never used unnoticed.

    Args:
        config: of the base.
        checkpoint: of the base.
        cache_folder: on this machine; where it cannot be read or written, the base is read again.
        shared: the store to ask and tell about a base on S3, if any.
        on_bytes: hears how many more bytes were read, where the base has to be read.

    Raises:
        StoreUnavailable: config or headers are not those of the first reading although no file changed.
        CrossLoraError: what reading the base or the store raises.
    """
    files = _identities(checkpoint)
    outline = outline_of(config, checkpoint.tensors.values())
    sidecar = _sidecar(checkpoint, cache_folder)
    asked = shared if checkpoint.folder.remote else None
    kept = _same_files(_read_sidecar(sidecar), files) or _same_files(_fetch(asked, files), files)
    if kept is not None and kept["outline"] != outline:
        _refuse_spoiled(checkpoint)
        kept = None
    if kept is None:
        content = digest.read_content(config, checkpoint, on_bytes)
        kept = {"version": _VERSION, "files": files, "outline": outline, **vars(content)}
        if not _settled(checkpoint, files):
            return content
    _write_sidecar(sidecar, kept)
    _tell(asked, kept)
    return Content(kept["digest"], kept["blocks"])


def default_cache_folder() -> Path | None:
    """`$XDG_CACHE_HOME/cross-lora` or `~/.cache/cross-lora`; None where there is no home."""
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(root) / "cross-lora"


def _identities(checkpoint: Checkpoint) -> list[list[str | int]]:
    return [checkpoint.folder.identity(name) for name in ("config.json", *checkpoint.files)]


def _settled(checkpoint: Checkpoint, files: list[list[str | int]]) -> bool:
    """Whether no file changed meanwhile, or is so new that a second write could share its time stamp."""
    if checkpoint.folder.remote:
        return True
    newest = max(int(entry[2]) for entry in files)
    return newest < (time.time() - _SETTLED_SECONDS) * 1e9 and _identities(checkpoint) == files


def _same_files(record: _Record | None, files: list[list[str | int]]) -> _Record | None:
    usable = record is not None and record.get("version") == _VERSION and record.get("files") == files
    return record if usable else None


def _refuse_spoiled(checkpoint: Checkpoint) -> None:
    """Files on a disk may have been changed without a trace; objects with the same ETag were not."""
    if checkpoint.folder.remote:
        raise StoreUnavailable(
            "config.json and headers as they were when the base's digest was computed",
            "others, from objects with the same ETags",
            checkpoint.folder.where(),
            "They were spoiled on the way; the same command can be run again.",
        )


def _sidecar(checkpoint: Checkpoint, cache_folder: Path | None) -> Path | None:
    root = cache_folder or default_cache_folder()
    if root is None:
        return None
    return root / "digests" / f"{hashlib.sha256(checkpoint.folder.location.encode()).hexdigest()[:32]}.json"


def _read_sidecar(path: Path | None) -> _Record | None:
    if path is None:
        return None
    with contextlib.suppress(OSError):
        return _parse(path.read_bytes())
    return None


def _parse(text: bytes) -> _Record | None:
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _write_sidecar(path: Path | None, record: _Record) -> None:
    if path is None or _read_sidecar(path) == record:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".partial", delete=False) as aside:
            json.dump(record, aside)
        Path(aside.name).replace(path)


def _key(files: list[list[str | int]]) -> str:
    return f"digests/{hashlib.sha256(json.dumps(files).encode()).hexdigest()}.json"


def _fetch(store: Store | None, files: list[list[str | int]]) -> _Record | None:
    if store is None:
        return None
    try:
        return _parse(store.get(_key(files)))
    except ObjectNotFound:
        return None


def _tell(store: Store | None, record: _Record) -> None:
    """Put the record, the same bytes whoever puts it; others there mean that one reading was spoiled."""
    if store is not None:
        store.put(_key(record["files"]), json.dumps(record, sort_keys=True).encode())
