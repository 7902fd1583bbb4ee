"""Rotary position embedding as config.json states it, so far as two bases can be compared by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RotarySpec", "rotary_of"]

_PLAIN = ("rope_type", "default")
PARTIAL = ("partial_rotary_factor", "rotary_pct")


@dataclass(frozen=True)
class RotarySpec:
    """Bases with equal ones turn coordinate i of a head, together with i + head_dim / 2, alike.

    Attributes:
        head_dim: coordinates of a head, all of which are turned.
        theta: base of the frequencies.
        rest: scaling and whatever else the config says of it, as sorted pairs.
    """

    head_dim: int
    theta: float
    rest: tuple[tuple[str, str], ...]


def rotary_of(config: Mapping[str, Any], head_dim: int | None) -> RotarySpec | None:
    """What a config whose text part is at the top level says; None where a part of a head stays unturned."""
    stated = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    theta = stated.pop("rope_theta", config.get("rope_theta"))
    shares = [float((stated if name in stated else config).get(name) or 1.0) for name in PARTIAL]
    if not isinstance(theta, int | float) or head_dim is None or head_dim % 2 or min(shares) < 1.0:
        return None
    if "rope_local_base_freq" in config:
        stated["rope_local_base_freq"] = config["rope_local_base_freq"]
    rest = sorted((name, str(value)) for name, value in stated.items() if (name, value) != _PLAIN)
    return RotarySpec(head_dim, float(theta), tuple(rest))
