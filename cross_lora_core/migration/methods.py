"""The methods a migration can use, and what each needs.

`random` and `zero` are controls: they are evaluated beside a method and never
registered as a result, so they are not listed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["METHOD_NEEDS", "Method", "MethodNeeds"]


class Method(StrEnum):
    """How an update of the source base becomes an update of the target base.

    `auto` is what a person asks for: the other methods are then tried as the ladder says
    (`cross_lora_core.migration.ladder`), and the evidence chooses.
    """

    AUTO = "auto"
    CROSS_LORA = "cross-lora"
    COPY = "copy"
    EFFECT = "effect"
    INTERPOLATE = "interpolate"
    PROBE = "probe"
    REFINE = "refine"
    SUBSPACE = "subspace"
    SUBSPACE_AND_NULL = "subspace+null"


@dataclass(frozen=True)
class MethodNeeds:
    """What has to be computed before a method can run.

    Attributes:
        source_factors: the truncated SVD of the source base's weights.
        target_factors: the truncated SVD of the target base's weights.
        alignment: the orthogonal maps between the two sets of singular vectors.
        probes: strings that the source base writes with the adapter on, which both bases are then run on.
        streams: the second moments of the residual streams of both bases, layer by layer.
        maps: the linear maps between the responses of both bases, module by module.
        training: gradient steps on the target, from what `effect` fits on.
        equal_widths: every module must have the same shape in both bases.
    """

    source_factors: bool = False
    target_factors: bool = False
    alignment: bool = False
    probes: bool = False
    streams: bool = False
    maps: bool = False
    training: bool = False
    equal_widths: bool = False

    @property
    def factors(self) -> bool:
        """Whether any factorization is needed at all."""
        return self.source_factors or self.target_factors


METHOD_NEEDS: dict[Method, MethodNeeds] = {
    Method.AUTO: MethodNeeds(),
    Method.CROSS_LORA: MethodNeeds(source_factors=True, target_factors=True, alignment=True),
    Method.COPY: MethodNeeds(equal_widths=True),
    Method.EFFECT: MethodNeeds(probes=True, streams=True),
    Method.INTERPOLATE: MethodNeeds(),
    Method.PROBE: MethodNeeds(maps=True),
    Method.REFINE: MethodNeeds(probes=True, streams=True, training=True),
    Method.SUBSPACE: MethodNeeds(target_factors=True, equal_widths=True),
    Method.SUBSPACE_AND_NULL: MethodNeeds(source_factors=True, target_factors=True, equal_widths=True),
}
