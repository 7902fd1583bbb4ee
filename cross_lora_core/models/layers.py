"""Layer groups (the unit of memory, caching and retry) and the map from target to source layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cross_lora_core.errors import ConfigurationError

if TYPE_CHECKING:
    from cross_lora_core.models.base import BaseModel

__all__ = ["DEFAULT_GROUP_BYTES", "LayerGroup", "factor_bytes", "layer_groups", "map_layers", "proportional"]

DEFAULT_GROUP_BYTES = 256 << 20
FLOAT32_BYTES = 4

LayerMap = Callable[[int, int], tuple[int, ...]]


@dataclass(frozen=True)
class LayerGroup:
    """The layers from `first` to `last`, both included."""

    index: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"layer {self.first}" if self.first == self.last else f"layers {self.first}-{self.last}"

    @property
    def layers(self) -> range:
        """The layers of the group, in order."""
        return range(self.first, self.last + 1)


def factor_bytes(base: BaseModel, layer: int, rank: int) -> int:
    """Bytes of the float32 U, S and Vh of every role of one layer at this rank."""
    specs = [base.linear(layer, role) for role in base.roles]
    numbers = (min(rank, spec.d_out, spec.d_in) * (spec.d_out + spec.d_in + 1) for spec in specs)
    return FLOAT32_BYTES * sum(numbers)


def layer_groups(
    base: BaseModel, *, rank: int, byte_limit: int = DEFAULT_GROUP_BYTES
) -> tuple[LayerGroup, ...]:
    """Cut the layers of a base into contiguous groups whose factors stay under `byte_limit`.

    A layer that is larger on its own makes a group of one. Deterministic in its arguments.

    Raises:
        ConfigurationError: rank or byte_limit is not positive.
    """
    if rank < 1 or byte_limit < 1:
        raise ConfigurationError(
            "a positive rank and byte limit", f"{rank} and {byte_limit}", "layer_groups", "Raise the setting."
        )
    starts, held = [0], 0
    for layer in range(base.layers):
        size = factor_bytes(base, layer, rank)
        if held and held + size > byte_limit:
            starts, held = [*starts, layer], 0
        held += size
    ends = [*(start - 1 for start in starts[1:]), base.layers - 1]
    return tuple(LayerGroup(index, *bounds) for index, bounds in enumerate(zip(starts, ends, strict=True)))


def proportional(source_layers: int, target_layers: int) -> tuple[int, ...]:
    """Same depth, same index; otherwise l_s = round(l_t (L_s - 1) / (L_t - 1))."""
    span = max(target_layers - 1, 1)
    return tuple(round(layer * (source_layers - 1) / span) for layer in range(target_layers))


def map_layers(source_layers: int, target_layers: int, rule: LayerMap = proportional) -> tuple[int, ...]:
    """For each target layer, the source layer it takes its update from.

    Args:
        source_layers: depth of the source base.
        target_layers: depth of the target base.
        rule: another map with the same two arguments.

    Raises:
        ConfigurationError: a depth is not positive, or the rule leaves the source's layers.
    """
    depths_exist = min(source_layers, target_layers) > 0
    chosen = tuple(rule(source_layers, target_layers)) if depths_exist else ()
    if not chosen or len(chosen) != target_layers or not set(chosen) <= set(range(source_layers)):
        raise ConfigurationError(
            f"{target_layers} source layers between 0 and {source_layers - 1}",
            str(chosen),
            getattr(rule, "__name__", "the layer map"),
            "Give a rule that maps every target layer to a layer of the source.",
        )
    return chosen
