"""Are two bases related? A cheap look at a sample of corresponding weights."""

from __future__ import annotations

import random
from dataclasses import dataclass

from cross_lora_core import algebra
from cross_lora_core.models import BaseModel, Role, map_layers

__all__ = ["RELATED", "SIMILARITY_VERSION", "BaseSimilarity", "base_similarity"]

RELATED = 0.5
"""Bases of at least this similarity are related. docs/verdicts.md says what was measured."""

SIMILARITY_VERSION = 1
"""Raised whenever the same bases would give another number."""

SAMPLED_MODULES = 24
SAMPLED_ROWS = 32


@dataclass(frozen=True)
class BaseSimilarity:
    """What the sample showed.

    Attributes:
        cosine: mean over the sampled rows of the cosine between corresponding ones; 0 if no shapes are equal.
        modules: modules looked at.
    """

    cosine: float
    modules: int

    @property
    def related(self) -> bool:
        """Whether one base was made from the other, as far as weights can tell."""
        return self.cosine >= RELATED


def base_similarity(source: BaseModel, target: BaseModel) -> BaseSimilarity:
    """Mean cosine between corresponding rows of a fixed, seeded sample of modules of equal shape.

    Reads `SAMPLED_ROWS` consecutive rows of each of `SAMPLED_MODULES` modules of both bases, nothing else.
    """
    drawn = random.Random(0)  # noqa: S311
    equal = _equal_modules(source, target)
    chosen = sorted(drawn.sample(equal, min(SAMPLED_MODULES, len(equal))))
    cosines = []
    for target_layer, source_layer, role in chosen:
        start = drawn.randrange(max(1, target.linear(target_layer, role).d_out - SAMPLED_ROWS + 1))
        rows = (start, start + SAMPLED_ROWS)
        ours = source.read_rows(source_layer, role, *rows)
        theirs = target.read_rows(target_layer, role, *rows)
        cosines.append(float(algebra.row_cosines(ours, theirs).mean()))
    return BaseSimilarity(sum(cosines) / len(cosines) if cosines else 0.0, len(cosines))


def _equal_modules(source: BaseModel, target: BaseModel) -> list[tuple[int, int, Role]]:
    """(target layer, source layer, role) of every pair of mapped modules with the same shape."""
    mapped = enumerate(map_layers(source.layers, target.layers))
    return [
        (layer, ours, role)
        for layer, ours in mapped
        for role in target.roles
        if role in source.roles and _shape(source, ours, role) == _shape(target, layer, role)
    ]


def _shape(base: BaseModel, layer: int, role: Role) -> tuple[int, int]:
    linear = base.linear(layer, role)
    return linear.d_out, linear.d_in
