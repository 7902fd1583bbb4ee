"""The tensors of a folder of safetensors files: where they are, and one slice at a time.

Only the headers are read when a checkpoint is opened; no file stays open between
calls, and no pickle is ever loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from cross_lora_core.errors import BaseModelError

__all__ = ["Checkpoint", "StoredTensor", "open_checkpoint"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LENGTH_BYTES = 8
LARGEST_HEADER = 100_000_000
CHUNK = 4 << 20
READABLE = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor on disk; `start` and `stop` are byte offsets in `file`."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    def chunks(self) -> Iterator[bytes]:
        """The raw bytes, a few MiB at a time."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            for position in range(self.start, self.stop, CHUNK):
                yield stream.read(min(CHUNK, self.stop - position))


@dataclass(frozen=True)
class Checkpoint:
    """Every tensor of a base by its name in the files."""

    folder: Path
    tensors: dict[str, StoredTensor]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the tensors, sorted."""
        return tuple(sorted({tensor.file for tensor in self.tensors.values()}))

    def find(self, name: str) -> StoredTensor:
        """Where a tensor is and what it looks like.

        Raises:
            BaseModelError: there is none of this name, or its dtype is not fp16, bf16 or fp32.
        """
        if name not in self.tensors:
            raise BaseModelError(
                f"a tensor {name}",
                f"{len(self.tensors)} tensors without it",
                str(self.folder),
                "Download or export the base again; its checkpoint is incomplete.",
            )
        tensor = self.tensors[name]
        if tensor.dtype not in READABLE:
            raise BaseModelError(
                f"{name} in fp16, bf16 or fp32",
                tensor.dtype,
                str(tensor.file),
                "Use the unquantised checkpoint of this base.",
            )
        if tensor.stop - tensor.start != READABLE[tensor.dtype].itemsize * math.prod(tensor.shape):
            raise _damaged(tensor.file, f"{tensor.stop - tensor.start} bytes for {name} {tensor.shape}")
        return tensor

    def read(self, name: str, ranges: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """One tensor as float32, or the given half-open ranges of its first axis, joined in order.

        Raises:
            BaseModelError: no such tensor, an unreadable dtype, or a damaged file.
        """
        stored = self.find(name)
        chosen = ((0, stored.shape[0]),) if ranges is None else ranges
        sizes = [stop - start for start, stop in chosen]
        result = torch.empty(sum(sizes), *stored.shape[1:])
        try:
            with stored.file.open("rb") as stream:
                for part, (start, _) in zip(torch.split(result, sizes), chosen, strict=True):
                    _read_rows(stream, stored, start, part)
        except OSError as error:
            raise _damaged(stored.file, f"{type(error).__name__}: {error}") from error
        return result


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of `model.safetensors`, or of the shards named by its index.

    Raises:
        BaseModelError: no safetensors, a missing or truncated file, or a tensor that is not
            in the shard the index names.
    """
    if (folder / SINGLE).is_file():
        return Checkpoint(folder, {tensor.name: tensor for tensor in _read_header(folder / SINGLE)})
    if (folder / INDEX).is_file():
        return Checkpoint(folder, _read_shards(folder))
    raise _no_weights(folder)


def _read_shards(folder: Path) -> dict[str, StoredTensor]:
    weight_map = _read_index(folder / INDEX)
    shards = {
        shard: {tensor.name: tensor for tensor in _read_header(folder / shard)}
        for shard in sorted(set(weight_map.values()))
    }
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise BaseModelError(
                f"tensor {name} in {shard}, as {INDEX} says",
                "a shard without it",
                str(folder / shard),
                "Download this shard and the index again; they are of different versions.",
            )
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_bytes())["weight_map"]
        plain = all(Path(shard).name == shard for shard in weight_map.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if not plain:
        raise BaseModelError("shard names without a folder", "a path", str(path), "Download the index again.")
    return cast(dict[str, str], weight_map)


def _read_header(path: Path) -> list[StoredTensor]:
    """Tensors of one file, after checking that the file is as long as its header promises."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            if length > min(size, LARGEST_HEADER):
                raise _damaged(path, f"a header of {length} bytes in a file of {size}")
            header = json.loads(stream.read(length))
        tensors = _parse_header(path, header, LENGTH_BYTES + length)
    except FileNotFoundError as error:
        raise _missing_shard(path) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"an unreadable header ({type(error).__name__}: {error})") from error
    promised = max((tensor.stop for tensor in tensors), default=0)
    if promised > size:
        raise _damaged(path, f"{size} bytes of the {promised} its header promises")
    return tensors


def _read_rows(stream: BufferedReader, stored: StoredTensor, first: int, result: Tensor) -> None:
    """Fill `result` with rows from `first` on.

    Plain reads: mapping a file larger than memory is refused by the system, and a mapped file
    that is cut short meanwhile kills the process.
    """
    dtype = READABLE[stored.dtype]
    content = bytearray(result.numel() * dtype.itemsize)
    stream.seek(stored.start + first * dtype.itemsize * math.prod(stored.shape[1:]))
    if stream.readinto(content) != len(content):
        raise _damaged(stored.file, f"a file that ends inside {stored.name}")
    result.copy_(torch.frombuffer(content, dtype=dtype).view(result.shape))


def _parse_header(path: Path, header: dict[str, Any], data: int) -> list[StoredTensor]:
    return [
        StoredTensor(
            name=name,
            file=path,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            start=data + entry["data_offsets"][0],
            stop=data + entry["data_offsets"][1],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    ]


def _damaged(path: Path, got: str) -> BaseModelError:
    return BaseModelError(
        "a whole safetensors file", got, str(path), "The file is truncated or damaged; download it again."
    )


def _missing_shard(path: Path) -> BaseModelError:
    return BaseModelError(
        f"the shard {path.name} that {INDEX} names",
        "no such file",
        str(path.parent),
        "Download the missing shard into this folder.",
    )


def _no_weights(folder: Path) -> BaseModelError:
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        return BaseModelError(
            f"{SINGLE} or {INDEX}",
            f"only {pickles[0]}, a pickle that could run code when loaded",
            str(folder),
            "Convert the base to safetensors (load it in a place you trust, then "
            "save_pretrained(folder)) and point here again.",
        )
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "an empty folder"
    return BaseModelError(
        f"{SINGLE} or {INDEX}", found, str(folder), "Download the safetensors weights of the base."
    )
