"""A fleet on pico models: adapters made with PEFT, some with evaluation files, some broken on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cross_lora_core.algebra import LoraFactors
from cross_lora_core.models import BaseModel, Role
from tests.support.spectra import random_update

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
SENTENCES = (
    "the cat sat on the mat",
    "the dog sat in Paris",
    "Paris is the city of été",
    "42 and the dog to the mat",
)


def make_adapter(base: Path, folder: Path, *, seed: int = 0, strength: float = 0.1, **config: Any) -> Path:
    """Save a PEFT LoRA with random factors on a pico base.

    Args:
        base: folder of the base.
        folder: written.
        seed: of the factors.
        strength: standard deviation of the entries of lora_B; 0 gives an adapter that changes nothing.
        config: fields of `LoraConfig`; by default rank 4 on q, k, v and o.
    """
    model = AutoModelForCausalLM.from_pretrained(base)
    fields = {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION, "task_type": "CAUSAL_LM", **config}
    adapted = get_peft_model(model, LoraConfig(**fields))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(strength * torch.randn(parameter.shape, generator=generator))
            elif "lora_A" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
    adapted.save_pretrained(folder)
    return folder


def write_rows(folder: Path, rows: int = 10) -> Path:
    """Write an `evaluation.jsonl` of short sentences into an adapter's folder."""
    lines = [
        {"prompt": f"{SENTENCES[number % 4]} ", "completion": f"{SENTENCES[(number + 1) % 4]} {number}"}
        for number in range(rows)
    ]
    path = folder / "evaluation.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def poison(folder: Path) -> Path:
    """Put a NaN into one tensor of an adapter."""
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    first = sorted(tensors)[0]
    tensors[first][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def some_updates(
    base: BaseModel, roles: tuple[Role, ...] | None = None, rank: int = 3
) -> dict[tuple[int, Role], LoraFactors]:
    """Random updates of a base's modules; by default of all."""
    result = {}
    for spec in base.linears():
        if roles is None or spec.role in roles:
            drawn = random_update(spec.d_out, spec.d_in, rank, spec.layer * 10 + len(result), scaling=0.3)
            result[spec.layer, spec.role] = LoraFactors(
                drawn.lora_A.float(), drawn.lora_B.float(), drawn.scaling
            )
    return result
