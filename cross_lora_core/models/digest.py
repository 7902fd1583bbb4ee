"""Identity of a base: one sha256 over what its config means and what its tensors hold.

The same model in one file or in ten has the same digest. Weights are streamed, and
the result is remembered beside the sizes and times of the files it was made from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cross_lora_core.models.checkpoint import Checkpoint

__all__ = ["cached_digest", "default_cache_folder", "digest_base", "normalise_config"]

CACHE_VERSION = 1
SETTLED_SECONDS = 2.0
NOT_THE_FUNCTION = frozenset(
    {
        "architectures",
        "attn_implementation",
        "auto_map",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "id2label",
        "label2id",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "return_dict",
        "task_specific_params",
        "torch_dtype",
        "transformers_version",
        "unk_token_id",
        "use_cache",
    }
)


def normalise_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that define the function, at every depth: no nulls, no private or bookkeeping fields."""
    return {
        key: normalise_config(value) if isinstance(value, Mapping) else value
        for key, value in sorted(config.items())
        if value is not None and not key.startswith("_") and key not in NOT_THE_FUNCTION
    }


def digest_base(config: Mapping[str, Any], checkpoint: Checkpoint) -> str:
    """sha256 hex over the normalised config and, by name, every tensor's dtype, shape and raw bytes."""
    whole = hashlib.sha256(json.dumps(normalise_config(config), sort_keys=True).encode())
    for name, tensor in sorted(checkpoint.tensors.items()):
        header = json.dumps([name, tensor.dtype, tensor.shape, tensor.stop - tensor.start])
        whole.update(b"\n" + header.encode() + b"\n")
        for chunk in tensor.chunks():
            whole.update(chunk)
    return whole.hexdigest()


def cached_digest(config: Mapping[str, Any], checkpoint: Checkpoint, cache_folder: Path | None) -> str:
    """`digest_base`, computed only when a file changed since it was last asked for.

    The cache is a convenience: where it cannot be read or written, the digest is computed.
    """
    files = _fingerprint([checkpoint.folder / "config.json", *checkpoint.files])
    sidecar = _sidecar(checkpoint.folder, cache_folder)
    known = _read_sidecar(sidecar)
    if known is not None and known.get("files") == files:
        return str(known["digest"])
    digest = digest_base(config, checkpoint)
    if _settled(files) and _fingerprint([Path(str(entry[0])) for entry in files]) == files:
        _write_sidecar(sidecar, {"version": CACHE_VERSION, "files": files, "digest": digest})
    return digest


def default_cache_folder() -> Path | None:
    """`$XDG_CACHE_HOME/cross-lora` or `~/.cache/cross-lora`; None where there is no home."""
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(root) / "cross-lora"


def _fingerprint(files: Sequence[Path]) -> list[list[str | int]]:
    stats = [(file, file.stat()) for file in files]
    return [[str(file.resolve()), stat.st_size, stat.st_mtime_ns] for file, stat in stats]


def _settled(files: Sequence[Sequence[str | int]]) -> bool:
    """Whether no file is so new that a second write could share its time stamp."""
    return max(int(entry[2]) for entry in files) < (time.time() - SETTLED_SECONDS) * 1e9


def _sidecar(folder: Path, cache_folder: Path | None) -> Path | None:
    root = cache_folder or default_cache_folder()
    if root is None:
        return None
    return root / "digests" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]}.json"


def _read_sidecar(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    usable = isinstance(known, dict) and known.get("version") == CACHE_VERSION and "digest" in known
    return known if usable else None


def _write_sidecar(path: Path | None, content: Mapping[str, Any]) -> None:
    if path is None:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".partial", delete=False) as aside:
            json.dump(content, aside)
        Path(aside.name).replace(path)
