"""A pair of bases of a stated shape with stored factors, and adapters of the source, made in seconds.

No weight is ever factorized: orthonormal bases with a slowly decaying spectrum are written as a factorization
would write them, through the product's own `write_factors` and `put`. One pair of singular bases is drawn per
role; other layers have it with rows in another order and other signs, which keeps it orthonormal. The weights
themselves are sparse files of true shape: nothing of them is read but their headers, and once for the digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cross_lora_core.algebra import Alignment, SpectralFactors
from cross_lora_core.migration import (
    AdapterCandidate,
    MigrationRequest,
    ModuleFactors,
    Plan,
    TransferSpec,
    alignment_key,
    factors_key,
    make_plan,
    write_alignments,
    write_factors,
)
from cross_lora_core.models import BaseModel, LayerGroup, Role, open_base
from tasks.runtime import open_stored, put_once

READS_A_NORM = (Role.q, Role.k, Role.v, Role.gate, Role.up)
SPECTRUM_TAIL = 0.1
"""The 320th singular value beside the first; about what the weights of small real bases have."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a base that a config states."""

    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    d_ff: int
    vocabulary: int = 1024


SOURCE = Shape("qwen2", 28, 1536, 12, 2, 128, 8960)
TARGET = Shape("llama", 28, 3072, 24, 8, 128, 8192)
SMALL_SOURCE = Shape("qwen2", 4, 192, 6, 2, 32, 1120)
SMALL_TARGET = Shape("llama", 4, 384, 12, 4, 32, 1024)


def make_base(folder: Path, shape: Shape) -> Path:
    """A folder that opens as a base of this shape; its weights are a sparse file of zeros."""
    if (folder / "config.json").exists():  # a file that stays as it is lets the digest be remembered
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["Qwen2ForCausalLM" if shape.family == "qwen2" else "LlamaForCausalLM"],
        "model_type": shape.family,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.d_ff,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6,
    }
    write_sparse(folder / "model.safetensors", tensors_of(shape))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def make_dense_base(folder: Path, shape: Shape, seed: int) -> Path:
    """The same with weights whose spectrum falls slowly, as that of real ones does, in bfloat16."""
    make_base(folder, shape)
    drawn = torch.Generator().manual_seed(seed)
    tensors = {name: _dense(sizes, drawn) for name, sizes in tensors_of(shape).items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def _dense(sizes: tuple[int, ...], drawn: torch.Generator) -> Tensor:
    falling = torch.linspace(1.0, 0.2, sizes[-1])
    dense = falling * torch.randn(*sizes, generator=drawn) if len(sizes) == 2 else 1 + falling
    return dense.to(torch.bfloat16)


def linears_of(shape: Shape) -> dict[str, tuple[int, int]]:
    """[d_out, d_in] of each projection of a layer, by its path in the layer."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "self_attn.q_proj": (queries, shape.width),
        "self_attn.k_proj": (keys, shape.width),
        "self_attn.v_proj": (keys, shape.width),
        "self_attn.o_proj": (shape.width, queries),
        "mlp.gate_proj": (shape.d_ff, shape.width),
        "mlp.up_proj": (shape.d_ff, shape.width),
        "mlp.down_proj": (shape.width, shape.d_ff),
    }


def tensors_of(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Shapes of every tensor of a checkpoint, biases left out."""
    named: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocabulary, shape.width),
        "model.norm.weight": (shape.width,),
    }
    for layer in range(shape.layers):
        above = f"model.layers.{layer}"
        named |= {f"{above}.{path}.weight": sizes for path, sizes in linears_of(shape).items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            named[f"{above}.{norm}.weight"] = (shape.width,)
    return named


def write_sparse(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of bfloat16 zeros that takes no room on the disk."""
    header, position = {}, 0
    for name, sizes in tensors.items():
        stop = position + 2 * int(torch.Size(sizes).numel())
        header[name] = {"dtype": "BF16", "shape": list(sizes), "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)


def make_adapters(folder: Path, shape: Shape, count: int, rank: int, seed: int) -> list[AdapterCandidate]:
    """PEFT folders in float16, on every projection, with factors of a trained adapter's size."""
    return [_make_adapter(folder / f"adapter-{one:04d}", shape, rank, seed + one) for one in range(count)]


def _make_adapter(folder: Path, shape: Shape, rank: int, seed: int) -> AdapterCandidate:
    if not (folder / "adapter_config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        drawn = torch.Generator().manual_seed(seed)
        tensors = {}
        for layer in range(shape.layers):
            for path, (d_out, d_in) in linears_of(shape).items():
                name = f"base_model.model.model.layers.{layer}.{path}"
                tensors[f"{name}.lora_A.weight"] = (0.02 * torch.randn(rank, d_in, generator=drawn)).half()
                tensors[f"{name}.lora_B.weight"] = (0.002 * torch.randn(d_out, rank, generator=drawn)).half()
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(_adapter_config(shape, rank)))
    return AdapterCandidate(folder.name, str(folder))


def _adapter_config(shape: Shape, rank: int) -> dict[str, Any]:
    return {
        "base_model_name_or_path": "source",
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": [path.rpartition(".")[2] for path in linears_of(shape)],
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }


def plan_of(
    folder: Path, sides: tuple[Shape, Shape], adapters: Iterable[AdapterCandidate], rank: int, bytes_: int
) -> Plan:
    """The plan a request for `cross-lora` gives, made by the product from the bases of `make_base`."""
    source, target = (open_base(make_base(folder / one.family, one)) for one in sides)
    request = MigrationRequest(source="source", targets=["target"], method="cross-lora", rank=rank)
    return make_plan(source, [target], adapters, TransferSpec.from_request(request), bytes_)


def put_factors(plan: Plan, seed: int) -> int:
    """Store factors and alignments of both bases of a plan, unless they are there; bytes of all of them."""
    (target,) = plan.targets
    opened = open_base(plan.source.location), open_base(target.base.location)
    sides = (
        (opened[0], plan.source.digest, plan.source_groups),
        (opened[1], target.base.digest, target.groups),
    )
    total = 0
    for number, (base, digest, groups) in enumerate(sides):
        drawn = _Drawn(base, plan.spec.rank, seed + number)
        for group in groups:
            key = factors_key(digest, plan.spec.factors, group.first, group.last)
            total += put_once(
                key, lambda path, one=group, by=drawn: write_factors(path, by.factors(one))
            ).size
    return total + _put_alignments(plan, opened, seed)


def _put_alignments(plan: Plan, opened: tuple[BaseModel, BaseModel], seed: int) -> int:
    (target,) = plan.targets
    total = 0
    for group in target.groups:
        key = alignment_key(plan.source, target.base, plan.spec, group.first, group.last)
        maps = (
            ((layer, role), _alignment(opened, role, plan.spec.rank, seed + layer))
            for layer in group.layers
            for role in opened[1].roles
        )
        total += put_once(key, lambda path, maps=maps: write_alignments(path, maps)).size
    return total


def _alignment(opened: tuple[BaseModel, BaseModel], role: Role, rank: int, seed: int) -> Alignment:
    drawn = torch.Generator().manual_seed(seed)
    sizes = [min(rank, one.linear(0, role).d_out, one.linear(0, role).d_in) for one in reversed(opened)]
    first = torch.linalg.qr(torch.randn(max(sizes), max(sizes), generator=drawn)).Q
    return Alignment(first[: sizes[0], : sizes[1]].contiguous(), first.T[: sizes[0], : sizes[1]].contiguous())


class _Drawn:
    """The singular bases of each role of a base, drawn when they are first asked for."""

    def __init__(self, base: BaseModel, rank: int, seed: int) -> None:
        self._base, self._rank, self._seed = base, rank, seed
        self._kept: dict[Role, tuple[Tensor, Tensor]] = {}

    def factors(self, group: LayerGroup) -> Iterator[tuple[tuple[int, Role], ModuleFactors]]:
        """What a factorization of a layer group gives, module by module."""
        for layer in group.layers:
            for role in self._base.roles:
                yield (layer, role), _module(self._base, layer, role, *self._of(role), self._seed)

    def _of(self, role: Role) -> tuple[Tensor, Tensor]:
        if role not in self._kept:
            linear, drawn = self._base.linear(0, role), torch.Generator().manual_seed(self._seed)
            kept = min(self._rank, linear.d_out, linear.d_in)
            U, V = (
                torch.linalg.qr(torch.randn(size, kept, generator=drawn)).Q
                for size in (linear.d_out, linear.d_in)
            )
            self._kept[role] = U, V
        return self._kept[role]


def _module(base: BaseModel, layer: int, role: Role, U: Tensor, V: Tensor, seed: int) -> ModuleFactors:
    generator = torch.Generator().manual_seed(1000 * seed + layer)
    S = torch.logspace(0, torch.tensor(SPECTRUM_TAIL).log10().item(), U.shape[1])
    gain = 1 + 0.3 * torch.randn(base.d_model, generator=generator) if role in READS_A_NORM else None
    spectral = SpectralFactors(
        _reordered(U, generator), S, _reordered(V, generator).T.contiguous(), energy=0.7
    )
    return ModuleFactors(spectral, gain, None, float(S.norm()))


def _reordered(columns: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, (len(columns), 1), generator=generator) * 2.0 - 1.0
    return signs * columns[torch.randperm(len(columns), generator=generator)]


def forget(plan: Plan) -> None:
    """Remove what was stored for the adapters of a plan, so that the next ones find room."""
    store = open_stored()
    for prefix in ("projections/", "adapters/"):
        for key in list(store.list(prefix)):
            store.delete(key)
