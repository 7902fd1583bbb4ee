"""The tensors of a folder of safetensors files: where they are, and one slice at a time.

Only the headers are read when a checkpoint is opened; no file stays open between
calls, and no pickle is ever loaded. Once the base's digest is known, each block
that is read is compared with the block the digest was made of.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, cast

import torch
from torch import Tensor

from cross_lora_core.errors import BaseModelError
from cross_lora_core.models.spans import Span, spans_of
from cross_lora_core.storage.folders import Folder

__all__ = ["BLOCK", "Checkpoint", "StoredTensor", "open_checkpoint"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LENGTH_BYTES = 8
LARGEST_HEADER = 100_000_000
BLOCK = 4 << 20
READABLE = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in its file; `start` and `stop` are byte offsets in `file`, a name in the folder."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Checkpoint:
    """Every tensor of a base by its name in the files.

    Attributes:
        folder: where the files are.
        tensors: by name.
        blocks: per tensor the sha256 of each `BLOCK` bytes of it, once the digest was computed. What is read
            is then widened to whole blocks and compared; before, it is taken as it comes.
    """

    folder: Folder
    tensors: dict[str, StoredTensor]
    blocks: Mapping[str, Sequence[str]] | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold the tensors, sorted."""
        return tuple(sorted({tensor.file for tensor in self.tensors.values()}))

    def verified_by(self, blocks: Mapping[str, Sequence[str]]) -> Checkpoint:
        """The same checkpoint, whose reads are compared with these blocks."""
        return replace(self, blocks=blocks)

    def where(self, tensor: StoredTensor) -> str:
        """The file of a tensor, for a person to find."""
        return self.folder.where(tensor.file)

    def find(self, name: str) -> StoredTensor:
        """Where a tensor is and what it looks like.

        Raises:
            BaseModelError: there is none of this name, or its dtype is not fp16, bf16 or fp32.
        """
        if name not in self.tensors:
            raise BaseModelError(
                f"a tensor {name}",
                f"{len(self.tensors)} tensors without it",
                self.folder.where(),
                "Download or export the base again; its checkpoint is incomplete.",
            )
        tensor = self.tensors[name]
        if tensor.dtype not in READABLE:
            raise BaseModelError(
                f"{name} in fp16, bf16 or fp32",
                tensor.dtype,
                self.where(tensor),
                "Use the unquantised checkpoint of this base.",
            )
        if tensor.stop - tensor.start != READABLE[tensor.dtype].itemsize * math.prod(tensor.shape):
            got = f"{tensor.stop - tensor.start} bytes for {name} {tensor.shape}"
            raise _damaged(self.where(tensor), got)
        return tensor

    def read(self, name: str, ranges: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """One tensor as float32, or the given half-open ranges of its first axis, joined in order.

        Raises:
            BaseModelError: no such tensor, an unreadable dtype, or bytes that are not those of the digest.
        """
        stored = self.find(name)
        chosen = ((0, stored.shape[0]),) if ranges is None else ranges
        dtype = READABLE[stored.dtype]
        result = torch.empty(sum(stop - start for start, stop in chosen), *stored.shape[1:])
        row = dtype.itemsize * math.prod(stored.shape[1:])
        wanted = [(start * row, stop * row) for start, stop in chosen]
        unit = BLOCK if self.blocks is not None else 1
        length = stored.stop - stored.start
        for span in spans_of(wanted, unit=unit, gap=self.folder.gap, length=length):
            for position, piece in self._pieces(stored, span):
                _copy(span.parts_in(position, len(piece)), position, piece, result.view(-1), dtype)
        return result

    def stream(self, tensor: StoredTensor) -> Iterator[bytes]:
        """The raw bytes of a tensor, a block at a time, compared with nothing.

        Raises:
            BaseModelError: the file is gone, or ends too early.
        """
        return (piece for _, piece in self._raw(tensor, 0, tensor.stop - tensor.start))

    def _pieces(self, stored: StoredTensor, span: Span) -> Iterator[tuple[int, bytes]]:
        """A span block by block, each with its position in the tensor; a wrong block is read once more."""
        for position, piece in self._raw(stored, span.start, span.stop):
            if self._is_right(stored, position, piece):
                yield position, piece
                continue
            ((_, again),) = self._raw(stored, position, position + len(piece))
            if not self._is_right(stored, position, again):
                raise _changed(self.where(stored), stored.name)
            yield position, again

    def _is_right(self, stored: StoredTensor, position: int, piece: bytes) -> bool:
        if self.blocks is None:
            return True
        return hashlib.sha256(piece).hexdigest() == self.blocks[stored.name][position // BLOCK]

    def _raw(self, stored: StoredTensor, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        position = start
        try:
            pieces = self.folder.pieces(stored.file, stored.start + start, stored.start + stop, size=BLOCK)
            for piece in pieces:
                if len(piece) != min(BLOCK, stop - position):
                    break
                yield position, piece
                position += len(piece)
        except OSError as error:
            raise _damaged(self.where(stored), f"{type(error).__name__}: {error}") from error
        if position != stop:
            raise _damaged(self.where(stored), f"a file that ends inside {stored.name}")


def open_checkpoint(folder: Folder) -> Checkpoint:
    """Read the headers of `model.safetensors`, or of the shards named by its index.

    Raises:
        BaseModelError: no safetensors, a missing or truncated file, or a tensor that is not
            in the shard the index names.
    """
    if folder.has(SINGLE):
        return Checkpoint(folder, {tensor.name: tensor for tensor in _read_header(folder, SINGLE)})
    if folder.has(INDEX):
        return Checkpoint(folder, _read_shards(folder))
    raise _no_weights(folder)


def _read_shards(folder: Folder) -> dict[str, StoredTensor]:
    weight_map = _read_index(folder)
    shards = {
        shard: {tensor.name: tensor for tensor in _read_header(folder, shard)}
        for shard in sorted(set(weight_map.values()))
    }
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise BaseModelError(
                f"tensor {name} in {shard}, as {INDEX} says",
                "a shard without it",
                folder.where(shard),
                "Download this shard and the index again; they are of different versions.",
            )
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def _read_index(folder: Folder) -> dict[str, str]:
    where = folder.where(INDEX)
    try:
        weight_map = json.loads(folder.read(INDEX))["weight_map"]
        plain = all(PurePath(shard).name == shard for shard in weight_map.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(where, f"{type(error).__name__}: {error}") from error
    if not plain:
        raise BaseModelError("shard names without a folder", "a path", where, "Download the index again.")
    return cast(dict[str, str], weight_map)


def _read_header(folder: Folder, name: str) -> list[StoredTensor]:
    """Tensors of one file; a header that came damaged from S3 is asked for once more."""
    try:
        return _header_of(folder, name)
    except BaseModelError:
        if not folder.remote:
            raise
        return _header_of(folder, name)


def _header_of(folder: Folder, name: str) -> list[StoredTensor]:
    """Tensors of one file, after checking that the file is as long as its header promises."""
    where = folder.where(name)
    try:
        size = folder.size(name)
        length = int.from_bytes(_read(folder, name, 0, LENGTH_BYTES), "little")
        if length > min(size, LARGEST_HEADER):
            raise _damaged(where, f"a header of {length} bytes in a file of {size}")
        header = json.loads(_read(folder, name, LENGTH_BYTES, LENGTH_BYTES + length))
        tensors = _parse_header(name, header, LENGTH_BYTES + length)
    except FileNotFoundError as error:
        raise _missing_shard(folder, name) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(where, f"an unreadable header ({type(error).__name__}: {error})") from error
    promised = max((tensor.stop for tensor in tensors), default=0)
    if promised > size:
        raise _damaged(where, f"{size} bytes of the {promised} its header promises")
    return tensors


def _read(folder: Folder, name: str, start: int, stop: int) -> bytes:
    return b"".join(folder.pieces(name, start, stop, size=BLOCK))


def _copy(
    parts: Iterator[tuple[int, int, int]], position: int, piece: bytes, result: Tensor, dtype: torch.dtype
) -> None:
    """Into the flat result, what of a piece belongs there; `parts` count bytes of the stored dtype."""
    content = bytearray(piece)
    for start, stop, target in parts:
        count, first = (stop - start) // dtype.itemsize, target // dtype.itemsize
        values = torch.frombuffer(content, dtype=dtype, count=count, offset=start - position)
        result[first : first + count] = values


def _parse_header(file: str, header: dict[str, Any], data: int) -> list[StoredTensor]:
    return [
        StoredTensor(
            name=name,
            file=file,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            start=data + entry["data_offsets"][0],
            stop=data + entry["data_offsets"][1],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    ]


def _damaged(where: str, got: str) -> BaseModelError:
    return BaseModelError(
        "a whole safetensors file", got, where, "The file is truncated or damaged; download it again."
    )


def _changed(where: str, name: str) -> BaseModelError:
    return BaseModelError(
        f"the bytes of {name} that the base's digest was made of",
        "others, twice",
        where,
        "Restore the file. If it is as it should be, its first reading was spoiled: put a copy of the base "
        "elsewhere and give that.",
    )


def _missing_shard(folder: Folder, name: str) -> BaseModelError:
    return BaseModelError(
        f"the shard {name} that {INDEX} names",
        "no such file",
        folder.where(),
        "Download the missing shard into this folder.",
    )


def _no_weights(folder: Folder) -> BaseModelError:
    names = folder.names()
    pickles = [name for name in names if name.endswith(".bin")]
    if pickles:
        return BaseModelError(
            f"{SINGLE} or {INDEX}",
            f"only {pickles[0]}, a pickle that could run code when loaded",
            folder.where(),
            "Convert the base to safetensors (load it in a place you trust, then "
            "save_pretrained(folder)) and point here again.",
        )
    found = ", ".join(names[:8]) or "an empty folder"
    return BaseModelError(
        f"{SINGLE} or {INDEX}", found, folder.where(), "Download the safetensors weights of the base."
    )
