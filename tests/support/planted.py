"""A base rewritten in another basis, so that an adapter has one right counterpart on it; and the flow's steps."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cross_lora_core.migration import (
    Landing,
    MigrationRequest,
    Moving,
    Projected,
    TransferSpec,
    align_landings,
    anchor_rows,
    factorize_layers,
    project_landings,
)
from cross_lora_core.models import BaseModel, Role
from tests.support.pico_models import HEADS
from tests.support.spectra import generator, orthogonal

CPU = torch.device("cpu")
SPEC = TransferSpec.from_request(MigrationRequest(source="s", targets=["t"], rank=320))


def rewritten(folder: Path, target: Path, seed: int = 7) -> Path:
    """The same Llama function in another basis; for bases with as many key-value heads as heads.

    The residual stream is rotated, norm gains are folded in, heads and neurons are permuted.
    """
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    rotation = orthogonal(tensors["model.embed_tokens.weight"].shape[1], seed).float()
    moved = {name: _moved(name, tensors, rotation, seed) for name in tensors}
    save_file(
        {name: one.contiguous() for name, one in moved.items()},
        target / "model.safetensors",
        {"format": "pt"},
    )
    return target


def _moved(name: str, tensors: dict[str, torch.Tensor], rotation: torch.Tensor, seed: int) -> torch.Tensor:
    tensor = tensors[name]
    if name.endswith("norm.weight"):
        return torch.ones_like(tensor)
    if name == "model.embed_tokens.weight":
        return tensor @ rotation.T
    if name == "lm_head.weight":
        return (tensor * tensors["model.norm.weight"]) @ rotation.T
    order = _order(name, tensor, seed)
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        return (rotation @ tensor)[:, order]
    norm = "post_attention_layernorm" if ".mlp." in name else "input_layernorm"
    gain = tensors[f"{name.split('.self_attn')[0].split('.mlp')[0]}.{norm}.weight"]
    return ((tensor * gain) @ rotation.T)[order]


def _order(name: str, tensor: torch.Tensor, seed: int) -> torch.Tensor:
    """Order of the inner dimension: whole heads in attention, single neurons in the MLP."""
    inner = tensor.shape[1] if name.endswith(("o_proj.weight", "down_proj.weight")) else tensor.shape[0]
    layer = int(name.split(".layers.")[1].split(".")[0])
    units = inner if ".mlp." in name else HEADS
    order = torch.randperm(units, generator=generator(seed * 100 + layer))
    return torch.arange(inner).reshape(units, -1)[order].reshape(-1)


def project(source: BaseModel, target: BaseModel, updates) -> dict[tuple[int, Role], Projected]:
    """Factorize, align and project at full rank, as the flow does."""
    ours = dict(factorize_layers(source, range(source.layers), SPEC.factors, CPU))
    theirs = dict(factorize_layers(target, range(target.layers), SPEC.factors, CPU))
    landings = [Landing(layer, layer, role) for layer, role in updates]
    anchor = anchor_rows(source, target)
    maps = dict(align_landings(landings, lambda *k: ours[k], lambda *k: theirs[k], anchor))
    moving = [Moving(tuple(landings), updates)]
    (projected,) = project_landings(
        moving, target.linear, lambda *k: ours[k], lambda *k: theirs[k], lambda *k: maps[k], SPEC
    )
    return projected
