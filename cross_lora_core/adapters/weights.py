"""Read an adapter's tensors, without ever running code from its file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cross_lora_core.errors import AdapterRefused

__all__ = ["TensorName", "parse_name", "read_tensors"]

_PREFIX = re.compile(r"^(?:(?:base_model\.model|module|_orig_mod)\.)+")
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.[A-Za-z0-9_-]+)?(?:\.weight)?")
_REMEDY = "Download or save the adapter again."


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


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of `adapter_model.safetensors`, or of the legacy `adapter_model.bin`.

    The legacy file is a pickle: only its tensors are read, code in it is never run.

    Raises:
        AdapterRefused: no weights file, a truncated one, or a pickle with anything but tensors.
    """
    safe, legacy = folder / "adapter_model.safetensors", folder / "adapter_model.bin"
    if safe.is_file():
        return _read_safetensors(safe)
    if legacy.is_file():
        return _read_legacy(legacy)
    raise AdapterRefused(
        "adapter_model.safetensors or adapter_model.bin",
        "neither",
        str(folder),
        "Give the folder that PEFT's save_pretrained wrote.",
    )


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(file))
    except (SafetensorError, OSError) as error:
        raise AdapterRefused("a whole safetensors file", str(error), str(file), _REMEDY) from error


def _read_legacy(file: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a spoiled pickle can raise any of them
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise AdapterRefused("a file of tensors only", reason, str(file), _REMEDY) from error
    if not isinstance(loaded, dict) or not all(_is_plain(*one) for one in loaded.items()):
        got = f"a {type(loaded).__name__} with something else in it"
        raise AdapterRefused("a dictionary of names and plain tensors", got, str(file), _REMEDY)
    return loaded


def _is_plain(name: object, tensor: object) -> bool:
    """A dense tensor whose numbers are all in the file: a few bytes could stand for petabytes otherwise."""
    if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
