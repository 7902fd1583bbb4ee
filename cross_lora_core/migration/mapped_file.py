"""Safetensors files of this project, of which a few tensors at a time are mapped into memory."""

from __future__ import annotations

import json
import mmap
import weakref
from collections.abc import Iterable
from math import prod
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["MappedFile"]

_DTYPES = {"F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16}


class MappedFile:
    """An open file; what is read of it stays mapped while a tensor of that reading is held, and no longer.

    safetensors itself maps a file as a whole; to open it anew for every module was measured to cost a tenth
    of a projection.

    Attributes:
        metadata: texts of the header.
        names: of the tensors.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)
        length = int.from_bytes(self._file.read(8), "little")
        self._entries = json.loads(self._file.read(length))
        self.metadata: dict[str, str] = self._entries.pop("__metadata__", {})
        self.names = tuple(self._entries)
        self._data = 8 + length

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Some tensors by name, in one mapping from the first of them to the last; not to be written to."""
        entries = {name: self._entries[name] for name in names}
        first = self._data + min(entry["data_offsets"][0] for entry in entries.values())
        last = self._data + max(entry["data_offsets"][1] for entry in entries.values())
        page = first - first % mmap.ALLOCATIONGRANULARITY
        mapping = mmap.mmap(self._file.fileno(), last - page, access=mmap.ACCESS_COPY, offset=page)
        return {
            name: torch.frombuffer(
                mapping,
                dtype=_DTYPES[entry["dtype"]],
                count=prod(entry["shape"]),
                offset=self._data + entry["data_offsets"][0] - page,
            ).view(entry["shape"])
            for name, entry in entries.items()
        }
