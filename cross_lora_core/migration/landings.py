"""Which target module takes what from where."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cross_lora_core.models import Role

__all__ = ["Landing", "effect_landings", "refine_landings"]


@dataclass(frozen=True)
class Landing:
    """One target module that will receive an update, and the source module it comes from."""

    target_layer: int
    source_layer: int
    role: Role


def refine_landings(source_layers: int, target_layers: int, roles: tuple[Role, ...]) -> tuple[Landing, ...]:
    """What method `refine` trains, whatever the adapter touches: every projection of the target."""
    return tuple(
        replace(one, role=role) for one in effect_landings(source_layers, target_layers) for role in roles
    )


def effect_landings(source_layers: int, target_layers: int) -> tuple[Landing, ...]:
    """What method `effect` fills, whatever the adapter touches: every down projection of the target.

    The source layer is the one whose end the target layer's end is compared with: in proportion, and
    the last with the last.
    """
    return tuple(
        Landing(layer, max(1, round((layer + 1) * source_layers / target_layers)) - 1, Role.down)
        for layer in range(target_layers)
    )
