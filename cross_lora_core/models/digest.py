"""Identity of a base: one sha256 over what its config means and what its tensors hold.

The same model in one file or in ten, on a disk or on S3, has the same digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cross_lora_core.models.checkpoint import Checkpoint, StoredTensor

__all__ = ["Content", "normalise_config", "outline_of", "read_content"]

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


@dataclass(frozen=True)
class Content:
    """What a base holds.

    Attributes:
        digest: sha256 hex over the normalised config and, by name, every tensor's dtype, shape and raw bytes.
        blocks: per tensor the sha256 hex of each `BLOCK` bytes, to compare later reads with.
    """

    digest: str
    blocks: Mapping[str, Sequence[str]]


def read_content(
    config: Mapping[str, Any], checkpoint: Checkpoint, on_bytes: Callable[[int], None] | None = None
) -> Content:
    """Read every byte of every tensor once, a block at a time; `on_bytes` hears the size of each block."""
    whole = hashlib.sha256(_function(config))
    blocks: dict[str, list[str]] = {}
    for name, tensor in sorted(checkpoint.tensors.items()):
        whole.update(b"\n" + _heading(tensor) + b"\n")
        blocks[name] = []
        for block in checkpoint.stream(tensor):
            whole.update(block)
            blocks[name].append(hashlib.sha256(block).hexdigest())
            if on_bytes is not None:
                on_bytes(len(block))
    return Content(whole.hexdigest(), blocks)


def outline_of(config: Mapping[str, Any], tensors: Iterable[StoredTensor]) -> str:
    """sha256 hex over all of the digest's input that opening a base reads: config and headers."""
    headings = sorted(_heading(tensor) for tensor in tensors)
    return hashlib.sha256(b"\n".join([_function(config), *headings])).hexdigest()


def _function(config: Mapping[str, Any]) -> bytes:
    return json.dumps(normalise_config(config), sort_keys=True).encode()


def _heading(tensor: StoredTensor) -> bytes:
    return json.dumps([tensor.name, tensor.dtype, tensor.shape, tensor.stop - tensor.start]).encode()
