"""Sizes of a base, read from config.json under whichever name the family uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cross_lora_core.errors import BaseModelError
from cross_lora_core.models.families import Family
from cross_lora_core.models.roles import Role

__all__ = ["Dimensions", "columns_of", "read_dimensions", "row_ranges", "rows_of"]

D_MODEL = ("hidden_size", "n_embd", "n_embed", "d_model")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
D_FF = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner")

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Dimensions:
    """Sizes that the config states; None where it is silent and the checkpoint decides."""

    d_model: int | None
    layers: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    d_ff: int | None


def read_dimensions(config: Mapping[str, Any], family: Family, where: str) -> Dimensions:
    """Sizes from a config whose text part is already at the top level.

    Raises:
        BaseModelError: a size is not a positive whole number.
    """
    d_model, heads = _size(config, D_MODEL, where), _size(config, HEADS, where)
    head_dim = _size(config, ("head_dim",), where) or family.head_dim
    if head_dim is None and d_model and heads:
        head_dim = d_model // heads
    return Dimensions(
        d_model=d_model,
        layers=_size(config, LAYERS, where),
        heads=heads,
        kv_heads=_kv_heads(config, family, heads, where),
        head_dim=head_dim,
        d_ff=_size(config, D_FF, where),
    )


def _kv_heads(config: Mapping[str, Any], family: Family, heads: int | None, where: str) -> int | None:
    """As many as heads in a fused module that does not say; Falcon's older architecture has one or all."""
    if family.name == "falcon" and not config.get("new_decoder_architecture"):
        return 1 if config.get("multi_query", True) else heads
    fused = family.module_of(Role.q) == family.module_of(Role.k)
    return _size(config, KV_HEADS, where) or (heads if fused else None)


def _size(config: Mapping[str, Any], names: tuple[str, ...], where: str) -> int | None:
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or value < 1:
            raise BaseModelError(
                f"{name} to be a positive whole number", repr(value), where, "Repair config.json."
            )
        return value
    return None


def columns_of(role: Role, dimensions: Dimensions) -> int | None:
    """d_in of a role, or None where the config does not say."""
    if role is Role.o:
        return rows_of(Role.q, dimensions)
    return dimensions.d_ff if role is Role.down else dimensions.d_model


def rows_of(role: Role, dimensions: Dimensions) -> int | None:
    """d_out of a role, or None where the config does not say."""
    if role in (Role.o, Role.down):
        return dimensions.d_model
    if role in (Role.gate, Role.up):
        return dimensions.d_ff
    heads = dimensions.heads if role is Role.q else dimensions.kv_heads
    return heads * dimensions.head_dim if heads and dimensions.head_dim else None


def row_ranges(roles: tuple[Role, ...], family: Family, dimensions: Dimensions) -> dict[Role, Ranges] | None:
    """Rows of a fused module that belong to each of its roles; None where the config lacks a size."""
    sizes = [rows_of(role, dimensions) for role in roles]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    if family.layout == "groups":
        return _grouped(dimensions)
    ends = [sum(known[: position + 1]) for position in range(len(known))]
    return {role: ((end - size, end),) for role, size, end in zip(roles, known, ends, strict=True)}


def _grouped(dimensions: Dimensions) -> dict[Role, Ranges]:
    """Rows viewed as [kv_heads, heads / kv_heads + 2, head_dim]: queries, their key, their value."""
    heads, groups, head_dim = dimensions.heads or 0, dimensions.kv_heads or 1, dimensions.head_dim or 0
    queries = heads // groups * head_dim
    starts = range(0, groups * (queries + 2 * head_dim), queries + 2 * head_dim)
    return {
        Role.q: tuple((start, start + queries) for start in starts),
        Role.k: tuple((start + queries, start + queries + head_dim) for start in starts),
        Role.v: tuple((start + queries + head_dim, start + queries + 2 * head_dim) for start in starts),
    }
