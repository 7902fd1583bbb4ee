"""Safetensors files written one tensor after another, so that no copy of all of them is in memory."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

__all__ = ["write_all", "write_tensors"]

_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16"}
_COPY_BYTES = 1 << 20


def write_tensors(
    path: Path, tensors: Iterable[tuple[str, Tensor]], metadata: Callable[[], Mapping[str, str]]
) -> None:
    """Write tensors as they come; the file is there when all have come.

    The header stands first in the file and is known last, so the tensors wait beside it, on the same
    disk, and are copied behind it.

    Args:
        path: of the file.
        tensors: unique names and tensors of any device and layout; taken one at a time.
        metadata: asked for when the last tensor was written.

    Raises:
        ValueError: a name came twice.
        KeyError: a dtype that is not floating.
        OSError: the disk is full, or the folder cannot be written.
    """
    entries: dict[str, Any] = {}
    with tempfile.TemporaryFile(dir=path.parent) as data:
        for name, tensor in tensors:
            if name in entries:
                raise ValueError(f"expected every tensor once, got {name} again")
            entries[name] = _append(data, tensor)
        data.seek(0)
        with path.open("wb") as file:
            file.write(_header({"__metadata__": dict(metadata()), **entries}))
            shutil.copyfileobj(data, file, _COPY_BYTES)


def write_all(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write the same file of tensors that are all there, and each of their bytes once.

    Args:
        path: of the file.
        tensors: of any device and layout, by name.
        metadata: texts of the header.

    Raises:
        KeyError: a dtype that is not floating.
        OSError: the disk is full, or the folder cannot be written.
    """
    entries, start = {}, 0
    for name, tensor in tensors.items():
        entries[name] = _entry(tensor, start)
        start += tensor.nbytes
    with path.open("wb") as file:
        file.write(_header({"__metadata__": dict(metadata), **entries}))
        for tensor in tensors.values():
            _write_bytes(file, tensor)


def _append(data: IO[bytes], tensor: Tensor) -> dict[str, Any]:
    start = data.tell()
    _write_bytes(data, tensor)
    return _entry(tensor, start)


def _write_bytes(file: IO[bytes], tensor: Tensor) -> None:
    plain = tensor.detach().to("cpu").contiguous()
    file.write(plain.view(-1).view(torch.uint8).numpy().data)


def _entry(tensor: Tensor, start: int) -> dict[str, Any]:
    return {
        "dtype": _DTYPES[tensor.dtype],
        "shape": list(tensor.shape),
        "data_offsets": [start, start + tensor.nbytes],
    }


def _header(content: Mapping[str, Any]) -> bytes:
    """Its length in 8 bytes, then JSON, padded so that the tensors begin at a multiple of 8."""
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
