"""Write a PEFT LoRA folder for a target base that PEFT and vLLM load unchanged.

vLLM reads one global `r` and `lora_alpha`, and serves certain ranks only. So
all modules get one servable rank (padded with zeros, which is exact), scaling is
folded into the factors and `lora_alpha = r`.
"""

from __future__ import annotations

import json
import math
import shutil
import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cross_lora_core import algebra
from cross_lora_core.algebra import LoraFactors
from cross_lora_core.errors import AdapterRefused, ConfigurationError
from cross_lora_core.models import BaseModel, Role

__all__ = [
    "SERVABLE_RANKS",
    "WrittenAdapter",
    "module_updates",
    "round_update",
    "servable_rank",
    "write_adapter",
]

SERVABLE_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values vLLM accepts for `max_lora_rank`."""


@dataclass(frozen=True)
class WrittenAdapter:
    """What was written.

    Attributes:
        rank: of every module.
        modules: number of modules.
        truncation_loss: largest share of an update's squared norm that a smaller rank cost; 0 if none.
    """

    rank: int
    modules: int
    truncation_loss: float


def servable_rank(rank: int) -> int:
    """The smallest rank vLLM serves that is not below this one.

    Raises:
        ConfigurationError: above the largest.
    """
    for one in SERVABLE_RANKS:
        if rank <= one:
            return one
    raise ConfigurationError(
        f"a rank of at most {SERVABLE_RANKS[-1]}",
        str(rank),
        "the adapter to be written",
        "Set an output rank: the update is then truncated, and the loss reported.",
    )


def write_adapter(
    folder: Path,
    base: BaseModel,
    updates: Mapping[tuple[int, Role], LoraFactors],
    *,
    rank: int | None = None,
    dtype: torch.dtype = torch.float16,
    provenance: Mapping[str, Any] | None = None,
    origin: str = "Carried over from another base model by cross-lora-fleet, without data or training.",
) -> WrittenAdapter:
    """Write updates of a base as a PEFT folder; it appears whole or not at all.

    Args:
        folder: must not exist.
        base: the base the updates are for; its name and revision go into the config.
        updates: by (layer, role); slices of a fused module are joined, which adds their ranks up. One that
            was rounded to `dtype` is written as it is.
        rank: of the result; by default the smallest servable one that loses nothing.
        dtype: of the tensors.
        provenance: written as `migration.json`, with a model card beside it.
        origin: what the model card says of how it was made, a sentence.

    Raises:
        AdapterRefused: the numbers do not fit the dtype.
        ConfigurationError: the rank needed is above what can be served.
    """
    modules = module_updates(base, updates)
    needed = max(update.rank for update in modules.values())
    chosen = servable_rank(rank or needed)
    losses = [algebra.truncation_loss(one, chosen) for one in modules.values() if one.rank > chosen]
    tensors: dict[str, Tensor] = {}
    for path, update in modules.items():
        fitted = _fit(update, chosen, dtype)
        tensors[f"base_model.model.{path}.lora_A.weight"] = _cast(fitted.lora_A, dtype, path)
        tensors[f"base_model.model.{path}.lora_B.weight"] = _cast(fitted.lora_B, dtype, path)
    staged = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        card = _card(base, chosen, provenance or {}, origin)
        _write_files(staged, tensors, _config(base, modules, chosen), provenance or {}, card)
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return WrittenAdapter(chosen, len(modules), max(losses, default=0.0))


def module_updates(
    base: BaseModel, updates: Mapping[tuple[int, Role], LoraFactors]
) -> dict[str, LoraFactors]:
    """Updates by module path, sorted; slices of a fused module are joined, which adds their ranks up."""
    parts: dict[str, list[tuple[LoraFactors, Tensor, int | None]]] = defaultdict(list)
    for (layer, role), update in sorted(updates.items(), key=lambda item: (item[0][0], item[0][1])):
        spec = base.linear(layer, role)
        parts[spec.module].append((update, spec.row_index(), spec.fused_out))
    result = {}
    for path in sorted(parts):
        fused_out = parts[path][0][2]
        slices = [(update, rows) for update, rows, _ in parts[path]]
        result[path] = slices[0][0] if fused_out is None else algebra.stack_outputs(slices, fused_out)
    return result


def round_update(update: LoraFactors, dtype: torch.dtype) -> LoraFactors:
    """An update as `write_adapter` writes it where its rank is not cut: balanced, on the CPU, scaling 1.

    Raises:
        AdapterRefused: the numbers do not fit the dtype.
    """
    plain = algebra.balance(update)
    return LoraFactors(_cast(plain.lora_A, dtype, "lora_A"), _cast(plain.lora_B, dtype, "lora_B"))


def _fit(update: LoraFactors, rank: int, dtype: torch.dtype) -> LoraFactors:
    """The update at another rank, balanced; padding keeps the factors as they are."""
    if update.rank > rank:
        return algebra.rerank(update, rank)
    is_rounded = update.scaling == 1.0 and update.lora_A.dtype == update.lora_B.dtype == dtype
    plain = update if is_rounded and dtype != torch.float32 else algebra.balance(update)
    missing = rank - plain.rank
    lora_A = torch.nn.functional.pad(plain.lora_A, (0, 0, 0, missing))
    return LoraFactors(lora_A, torch.nn.functional.pad(plain.lora_B, (0, missing)))


def _cast(tensor: Tensor, dtype: torch.dtype, path: str) -> Tensor:
    cast = tensor.to("cpu", dtype).contiguous()
    low, high = (float(one) for one in torch.aminmax(cast))
    vanished = low == high == 0 and bool(tensor.any())
    if vanished or not (math.isfinite(low) and math.isfinite(high)):
        got = "all zeros after the cast" if vanished else "overflow"
        remedy = "Write it with --output-dtype bfloat16 or float32."
        raise AdapterRefused(f"numbers within {dtype}", got, path, remedy)
    return cast


def _config(base: BaseModel, modules: Mapping[str, LoraFactors], rank: int) -> dict[str, Any]:
    return {
        "base_model_name_or_path": base.name,
        "bias": "none",
        "fan_in_fan_out": base.linears()[0].transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "revision": base.revision,
        "target_modules": _target_modules(base, modules),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def _target_modules(base: BaseModel, modules: Mapping[str, LoraFactors]) -> list[str]:
    """Leaf names where every module of that name is written, else full paths, so that N of N land in PEFT."""
    every = {spec.module for spec in base.linears()}
    leaves = {path.rsplit(".", 1)[1] for path in modules}
    covered = {path for path in every if path.rsplit(".", 1)[1] in leaves}
    return sorted(leaves) if covered == set(modules) else sorted(modules)


def _write_files(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    card: str,
) -> None:
    folder.mkdir(parents=True)
    save_file(dict(tensors), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    for name, value in (("adapter_config.json", config), ("migration.json", provenance)):
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")


def _card(base: BaseModel, rank: int, provenance: Mapping[str, Any], origin: str) -> str:
    rows = "".join(
        f"| {name.replace('_', ' ')} | {value} |\n"
        for name, value in provenance.items()
        if isinstance(value, str | int | float)
    )
    return (
        f"---\nbase_model: {base.name}\nlibrary_name: peft\ntags: [lora, migrated]\n---\n"
        f"# LoRA adapter for {base.name}\n\n"
        f"{origin} What was "
        "measured of it is in the catalog and the migration report; do not assume it works as it did.\n\n"
        f"| | |\n|---|---|\n| rank | {rank} |\n{rows}"
    )
