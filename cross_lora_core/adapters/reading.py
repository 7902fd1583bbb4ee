"""A PEFT LoRA folder as a frozen value: one low-rank update per module."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cross_lora_core.adapters.config import AdapterConfig, read_config
from cross_lora_core.adapters.patterns import LONGEST_NAME
from cross_lora_core.adapters.weights import parse_name, read_tensors
from cross_lora_core.algebra import LoraFactors, working_dtype
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.storage import Folder, open_folder

__all__ = ["Adapter", "LoraModule", "Unusable", "read_adapter"]

_READABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class LoraModule:
    """The update of one module; `path` is the module's own, without PEFT's prefix.

    Factors are in float32 or in a half precision, as they are stored.
    """

    path: str
    update: LoraFactors


@dataclass(frozen=True)
class Unusable:
    """A part of the adapter that is not a low-rank update of a linear module, and why."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter, read whole.

    Attributes:
        digest: sha256 hex over module paths, factors and scalings; independent of format, dtype and prefixes.
        base_name: what the config says it was trained on.
        variant: `lora` or `rslora`.
        modules: in the order of their paths.
        unusable: parts that cannot be carried over.
        notes: remarks that change nothing.
    """

    name: str
    location: str
    digest: str
    base_name: str | None
    revision: str | None
    variant: str
    modules: tuple[LoraModule, ...]
    unusable: tuple[Unusable, ...]
    notes: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether every update is zero: the adapter loads, answers and changes nothing."""
        return all(not bool(one.update.lora_A.any() and one.update.lora_B.any()) for one in self.modules)


def read_adapter(location: str | Path, *, name: str | None = None) -> Adapter:
    """Read an adapter folder, here or on S3.

    Args:
        location: path or s3:// URL of the folder with `adapter_config.json` and the weights.
        name: what to call it; otherwise the folder's name.

    Raises:
        AdapterRefused: it is not a LoRA this project can move; the reason says why and what to do.
        CrossLoraError: what `open_folder` raises, for example because S3 did not answer.
    """
    folder = open_folder(location)
    config = read_config(folder)
    tensors = read_tensors(folder)
    _refuse_nonfinite(tensors, folder)
    pairs, others = _sort(tensors, folder)
    if not pairs:
        raise AdapterRefused(
            "tensors named ….lora_A.weight and ….lora_B.weight",
            f"{len(tensors)} other tensors",
            folder.where(),
            "Give an adapter that PEFT saved.",
        )
    modules = tuple(_module(path, pairs[path], config, folder) for path in sorted(pairs))
    return Adapter(
        name=name or folder.name,
        location=folder.location,
        digest=_digest(modules),
        base_name=config.base_name,
        revision=config.revision,
        variant=config.variant,
        modules=modules,
        unusable=_unusable([one for one in others if _owner(one) not in pairs], config),
        notes=(*config.notes, *_unsaved(others, config)),
    )


def _refuse_nonfinite(tensors: Mapping[str, Tensor], folder: Folder) -> None:
    readable = {name: tensor for name, tensor in tensors.items() if tensor.dtype in _READABLE}
    bad = sorted(name for name, tensor in readable.items() if not _is_finite(tensor))
    if bad:
        raise AdapterRefused(
            "finite numbers in every tensor",
            f"NaN or infinity in {len(bad)} of {len(tensors)} tensors, first {bad[0]}",
            folder.where(),
            "This adapter's training diverged; use an earlier checkpoint or retrain it.",
        )


def _is_finite(tensor: Tensor) -> bool:
    """Whether every number is; they are looked at one by one, which takes longer, where their sum is not."""
    total = tensor.sum(dtype=working_dtype(tensor))
    return bool(torch.isfinite(total)) or bool(torch.isfinite(tensor).all())


def _sort(tensors: Mapping[str, Tensor], folder: Folder) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """LoRA factors by module and side, and the paths of everything else."""
    pairs: dict[str, dict[str, Tensor]] = {}
    others = []
    for raw, tensor in sorted(tensors.items()):
        name = parse_name(raw)
        if name.side is None:
            others.append(name.module)
            continue
        sides = pairs.setdefault(name.module, {})
        if name.side in sides:
            raise _broken(f"one lora_{name.side} per module", f"two for {name.module}", folder)
        sides[name.side] = tensor
    return pairs, others


def _module(path: str, sides: Mapping[str, Tensor], config: AdapterConfig, folder: Folder) -> LoraModule:
    _check_sides(path, sides, folder)
    lora_A, lora_B = _single(sides["A"]), _single(sides["B"])
    if lora_A.ndim != 2 or lora_B.ndim != 2 or lora_A.shape[0] != lora_B.shape[1]:
        shapes = f"{list(lora_A.shape)} and {list(lora_B.shape)} at {path}"
        raise _broken("lora_A [r, d_in] and lora_B [d_out, r]", shapes, folder)
    rank = lora_A.shape[0]
    if rank != config.rank_of(path):
        raise _broken(f"rank {config.rank_of(path)} at {path}, as the config says", f"rank {rank}", folder)
    return LoraModule(path, LoraFactors(lora_A, lora_B, config.scaling_of(path, rank)))


def _single(factor: Tensor) -> Tensor:
    """A factor in float32, or in the half precision it is stored in."""
    return factor.float() if factor.dtype == torch.float64 else factor


def _check_sides(path: str, sides: Mapping[str, Tensor], folder: Folder) -> None:
    if set(sides) != {"A", "B"}:
        raise _broken("lora_A and lora_B of every module", f"only lora_{next(iter(sides))} of {path}", folder)
    if len(path) > LONGEST_NAME:
        raise _broken(f"module names of at most {LONGEST_NAME} characters", f"{path[:40]}…", folder)
    odd = next((side.dtype for side in sides.values() if side.dtype not in _READABLE), None)
    if odd is not None:
        raise _broken("factors in fp16, bf16, fp32 or fp64", f"{odd} at {path}", folder)


def _broken(expected: str, got: str, folder: Folder) -> AdapterRefused:
    return AdapterRefused(expected, got, folder.where(), "Save the adapter again with PEFT.")


def _unusable(others: list[str], config: AdapterConfig) -> tuple[Unusable, ...]:
    found = {_owner(path): _reason(path, config) for path in others}
    return tuple(Unusable(path, found[path]) for path in sorted(found))


def _unsaved(others: list[str], config: AdapterConfig) -> list[str]:
    """PEFT lists names that a model need not have; what is not in the file is no part of the adapter."""
    saved = {part for path in others for part in path.split(".")}
    return [
        f"modules_to_save names {one}, not in the file" for one in config.saved_modules if one not in saved
    ]


def _owner(path: str) -> str:
    """The module a tensor belongs to, so that weight and bias of one layer count once."""
    plain = path.removesuffix(".weight").removesuffix(".bias")
    return plain.removesuffix(".modules_to_save").removesuffix(".base_layer")


def _reason(path: str, config: AdapterConfig) -> str:
    if "lora_embedding" in path:
        return "a LoRA on the embedding belongs to the source's vocabulary"
    if "trainable_tokens" in path or (config.token_indices and "embed" in path):
        return "trained token embeddings belong to the source's vocabulary"
    if path.endswith(".bias"):
        return "a trained bias is not a low-rank update"
    if set(path.split(".")) & set(config.saved_modules) or "modules_to_save" in path:
        return "a fully trained layer (modules_to_save) is not a low-rank update"
    return "not a LoRA factor"


def _digest(modules: tuple[LoraModule, ...]) -> str:
    digest = hashlib.sha256()
    for one in modules:
        update = one.update
        head = [one.path, list(update.lora_A.shape), list(update.lora_B.shape), repr(update.scaling)]
        digest.update(repr(head).encode())
        for factor in (update.lora_A, update.lora_B):
            digest.update(factor.float().contiguous().numpy().data)
    return digest.hexdigest()
