"""The table of a base: one `LinearSpec` per (layer, role), checked against the checkpoint's headers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from cross_lora_core.errors import BaseModelError
from cross_lora_core.models.checkpoint import Checkpoint
from cross_lora_core.models.dimensions import Dimensions, columns_of, row_ranges, rows_of
from cross_lora_core.models.families import Family
from cross_lora_core.models.naming import count_layers
from cross_lora_core.models.roles import LinearSpec, Role

__all__ = ["build_specs", "complete_dimensions", "embedding_name", "wrong_shape"]

TIED_HEAD = "lm_head.weight"


def embedding_name(family: Family, container: str, checkpoint: Checkpoint) -> str:
    """Name of the input embedding; a tied checkpoint may hold it under the head's name only."""
    own = f"{container}{family.embedding}.weight"
    return TIED_HEAD if own not in checkpoint.tensors and TIED_HEAD in checkpoint.tensors else own


def complete_dimensions(
    stated: Dimensions, family: Family, container: str, checkpoint: Checkpoint
) -> Dimensions:
    """Sizes that config.json leaves out, from the shapes of the embedding and of `down`.

    Raises:
        BaseModelError: the tensors that would tell are not there, or there is no layer.
    """
    embedding = checkpoint.find(embedding_name(family, container, checkpoint))
    d_model = stated.d_model or embedding.shape[-1]
    if embedding.shape[1:] != (d_model,):
        raise wrong_shape(checkpoint, embedding.name, f"[vocabulary, {d_model}]", embedding.shape)
    layers = stated.layers or count_layers(family, container, checkpoint.tensors)
    down = checkpoint.find(f"{container}{family.stack}.0.{family.module_of(Role.down)}.weight")
    d_ff = stated.d_ff or down.shape[0 if family.transposed else -1]
    head_dim = stated.head_dim or (d_model // stated.heads if stated.heads else None)
    return replace(stated, d_model=d_model, layers=layers, d_ff=d_ff, head_dim=head_dim)


def build_specs(
    family: Family, dimensions: Dimensions, container: str, checkpoint: Checkpoint
) -> Mapping[tuple[int, Role], LinearSpec]:
    """Every weight of the base that has a role.

    Raises:
        BaseModelError: a layer lacks a tensor, or one has another shape than config.json implies.
    """
    specs = {}
    for layer in range(dimensions.layers or 0):
        for path, roles in family.modules.items():
            module = f"{family.stack}.{layer}.{path}"
            for spec in _module_specs(family, dimensions, checkpoint, container, module, layer, roles):
                specs[layer, spec.role] = spec
    return specs


def _module_specs(
    family: Family,
    dimensions: Dimensions,
    checkpoint: Checkpoint,
    container: str,
    module: str,
    layer: int,
    roles: tuple[Role, ...],
) -> Iterator[LinearSpec]:
    name = f"{container}{module}.weight"
    rows, columns = _checked_shape(family, dimensions, checkpoint, name, roles)
    ranges = row_ranges(roles, family, dimensions) or {} if len(roles) > 1 else {}
    for role in roles:
        own = ranges.get(role)
        yield LinearSpec(
            layer=layer,
            role=role,
            module=family.container + module,
            tensor=name,
            d_out=rows if own is None else sum(stop - start for start, stop in own),
            d_in=columns,
            transposed=family.transposed,
            row_ranges=own,
            fused_out=rows if len(roles) > 1 else None,
        )


def _checked_shape(
    family: Family, dimensions: Dimensions, checkpoint: Checkpoint, name: str, roles: tuple[Role, ...]
) -> tuple[int, int]:
    """[d_out, d_in] of the module, once they agree with every size that is known."""
    stored = checkpoint.find(name).shape
    shape = stored[::-1] if family.transposed else stored
    parts = [rows_of(role, dimensions) for role in roles]
    if len(roles) > 1 and None in parts:
        raise BaseModelError(
            "the number of attention heads in config.json, to split " + name,
            "a config without it",
            checkpoint.folder.where(),
            "Download config.json of this base again.",
        )
    rows = None if None in parts else sum(part or 0 for part in parts)
    columns = columns_of(roles[0], dimensions)
    if len(shape) != 2 or rows not in (None, shape[0]) or columns not in (None, shape[1]):
        wanted = f"[{rows or 'any'}, {columns or 'any'}]" + (" transposed" if family.transposed else "")
        raise wrong_shape(checkpoint, name, wanted, stored)
    return shape[0], shape[1]


def wrong_shape(checkpoint: Checkpoint, name: str, wanted: str, got: tuple[int, ...]) -> BaseModelError:
    """The error that says which tensor is not of the shape that config.json implies."""
    return BaseModelError(
        f"{name} of shape {wanted}, as config.json implies",
        str(list(got)),
        checkpoint.where(checkpoint.tensors[name]),
        "config.json and the weights are of different models; download both again.",
    )
