"""Read an adapter's tensors, without ever running code from its file."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor

from cross_lora_core.errors import AdapterRefused
from cross_lora_core.storage import Folder, LocalFolder

__all__ = ["TensorName", "parse_name", "read_tensors", "weights_file"]

_PREFIX = re.compile(r"^(?:(?:base_model\.model|module|_orig_mod)\.)+")
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.[A-Za-z0-9_-]+)?(?:\.weight)?")
_REMEDY = "Download or save the adapter again."
_ALIGNMENT = 64
"""Bytes; at a multiple of them torch's own tensors begin."""
_SAFE, _LEGACY = "adapter_model.safetensors", "adapter_model.bin"


@dataclass(frozen=True)
class TensorName:
    """A tensor's place: `side` is A or B for a LoRA factor, None for anything else."""

    module: str
    side: str | None


def parse_name(name: str) -> TensorName:
    """Strip wrappers' prefixes and the adapter's name: `….x.lora_A.default.weight` is (path of x, A)."""
    plain = _PREFIX.sub("", name)
    match = _LORA.fullmatch(plain)
    return TensorName(match["module"], match["side"]) if match else TensorName(plain, None)


def weights_file(folder: Folder) -> str:
    """Name of the file that holds the weights.

    Raises:
        AdapterRefused: there is none.
    """
    for name in (_SAFE, _LEGACY):
        if folder.has(name):
            return name
    raise AdapterRefused(
        f"{_SAFE} or {_LEGACY}",
        "neither",
        folder.where(),
        "Give the folder that PEFT's save_pretrained wrote.",
    )


def read_tensors(folder: Folder) -> dict[str, Tensor]:
    """Every tensor of `adapter_model.safetensors`, or of the legacy `adapter_model.bin`.

    The legacy file is a pickle: only its tensors are read, code in it is never run. Each tensor begins where
    torch would let it begin, wherever it was read from: matrix products round by where their operands lie.

    Raises:
        AdapterRefused: no weights file, a truncated one, or a pickle with anything but tensors.
    """
    found = _read_safetensors(folder) if weights_file(folder) == _SAFE else _read_legacy(folder)
    return {name: _aligned(found.pop(name)) for name in list(found)}


def _aligned(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.data_ptr() % _ALIGNMENT else tensor


def _read_safetensors(folder: Folder) -> dict[str, Tensor]:
    try:
        if isinstance(folder, LocalFolder):
            return dict(load_file(folder.path / _SAFE, backend="pread"))
        return dict(load(folder.read(_SAFE)))
    except (SafetensorError, OSError, KeyError) as error:
        raise AdapterRefused("a whole safetensors file", str(error), folder.where(_SAFE), _REMEDY) from error


def _read_legacy(folder: Folder) -> dict[str, Tensor]:
    file = folder.where(_LEGACY)
    try:
        content = folder.read(_LEGACY)
    except OSError as error:
        raise AdapterRefused("a file that can be read", str(error), file, _REMEDY) from error
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a spoiled pickle can raise any of them
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise AdapterRefused("a file of tensors only", reason, file, _REMEDY) from error
    if not isinstance(loaded, dict) or not all(_is_plain(*one) for one in loaded.items()):
        got = f"a {type(loaded).__name__} with something else in it"
        raise AdapterRefused("a dictionary of names and plain tensors", got, file, _REMEDY)
    return loaded


def _is_plain(name: object, tensor: object) -> bool:
    """A dense tensor whose numbers are all in the file: a few bytes could stand for petabytes otherwise."""
    if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
