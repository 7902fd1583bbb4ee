"""Everything a result depends on besides the bases and the adapter, as one content-addressed value."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Literal

from cross_lora_core.migration.methods import METHOD_NEEDS, Method, MethodNeeds
from cross_lora_core.migration.request import TransferOptions

__all__ = [
    "ALGORITHM_VERSION",
    "ANCHOR_TOKENS",
    "FactorSpec",
    "MapSpec",
    "ProbeSpec",
    "RefineSpec",
    "StreamSpec",
    "TransferSpec",
    "content_digest",
]

ALGORITHM_VERSION = 1
"""Raised whenever the same inputs would give other numbers, so that old stored results are not reused."""

FACTORS_VERSION = 3
"""Raised whenever the same weight would give other factors."""

EFFECT_VERSION = 2
"""Raised whenever method `effect` would give other numbers."""

EFFECT_RANK = 16
"""Rank of its updates where none is asked for."""

MAPS_VERSION = 2
"""Raised whenever method `probe` would give other maps or strengths."""

REFINE_VERSION = 1
"""Raised whenever method `refine` would give other numbers."""

ANCHOR_TOKENS = 4096
"""Shared tokens whose embedding rows anchor the singular vectors."""


def content_digest(value: object) -> str:
    """Hex sha256 of a JSON-serialisable value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class FactorSpec:
    """How a base's weights are factorized; shared by every fleet that asks for the same.

    Attributes:
        rank: singular vectors kept per weight.
        folded: whether norm gains are folded into the weight first, so that
            the singular vectors live in the coordinates of the normalised stream.
    """

    rank: int
    folded: bool

    @property
    def key(self) -> str:
        """Readable path segment of this spec in the store."""
        return f"v{FACTORS_VERSION}-r{self.rank}-{'folded' if self.folded else 'plain'}"


@dataclass(frozen=True)
class ProbeSpec:
    """Strings that a source base writes by itself, with an adapter on or without one.

    Attributes:
        count: strings.
        tokens: the most each has.
        contrasts: taken in turn, as `sample_strings` understands them.
        seed: of the sampling.
    """

    count: int = 128
    tokens: int = 100
    contrasts: tuple[float, ...] = (0.0,)
    seed: int = 0


@dataclass(frozen=True)
class StreamSpec:
    """What the residual streams of two bases are compared on, for method `effect`.

    Attributes:
        strings: that the source base writes without any adapter; a whole fleet shares them.
    """

    strings: ProbeSpec = ProbeSpec(count=256)


@dataclass(frozen=True)
class MapSpec:
    """The strings both bases are run on for method `probe`.

    Attributes:
        kind: where they come from, a `ProbeKind`.
        count: strings the maps are fitted on.
        held_out: further strings, by which ridges are chosen.
        tokens: the most a generated or random one has.
        seed: of the drawing.
    """

    kind: str = "generated"
    count: int = 240
    held_out: int = 60
    tokens: int = 140
    seed: int = 0


@dataclass(frozen=True)
class RefineSpec:
    """How method `refine` trains.

    Attributes:
        steps: of the optimiser.
        seconds: of training, after which it ends before its last step.
        batch: strings per step.
        learning_rate: at its highest.
        warmup_steps: over which it rises.
        weighting: how much a token counts: "change", by the divergence of what the adapted source predicts
            there from what the plain one does; "gain", by what the adapter adds to the token's own log
            probability; "none", all alike.
        seed: of the batches and of new factors.
    """

    steps: int = 150
    seconds: float = 900.0
    batch: int = 8
    learning_rate: float = 5e-4
    warmup_steps: int = 10
    weighting: Literal["change", "gain", "none"] = "change"
    seed: int = 0


@dataclass(frozen=True)
class TransferSpec:
    """How one adapter is carried to one target, and in which form it is written.

    Attributes:
        refine: `auto` may try method `refine`.
        training: how that trains.
        begins_with: the method whose updates `refine` goes on from.
    """

    method: Method
    rank: int
    anchor: str
    output_rank: int | None
    output_dtype: str
    refine: bool = False
    training: RefineSpec = RefineSpec()
    begins_with: Method = Method.EFFECT

    @classmethod
    def from_request(cls, request: TransferOptions) -> TransferSpec:
        """Take the parts of a request that change the result."""
        return cls(
            method=request.method,
            rank=request.rank,
            anchor=request.anchor,
            output_rank=request.output_rank,
            output_dtype=request.output_dtype,
            refine=request.refine,
            training=RefineSpec(steps=request.refine_steps, seconds=request.refine_seconds),
        )

    @property
    def needs(self) -> MethodNeeds:
        """What the method needs computed first."""
        needs = METHOD_NEEDS[self.method]
        return replace(needs, streams=False) if needs.training and self.begins_with is Method.COPY else needs

    @property
    def folded(self) -> bool:
        """Only an anchored transport works in the coordinates of the normalised stream."""
        return self.needs.alignment and self.anchor == "tokens"

    @property
    def factors(self) -> FactorSpec:
        """The factorization this transfer reads."""
        return FactorSpec(self.rank, self.folded)

    @property
    def probes(self) -> ProbeSpec:
        """The strings method `effect` is fitted on."""
        return ProbeSpec()

    @property
    def streams(self) -> StreamSpec:
        """What method `effect` compares the residual streams on."""
        return StreamSpec()

    @property
    def start(self) -> TransferSpec:
        """The transfer whose updates method `refine` goes on from; that of the other method itself."""
        return replace(self, method=self.begins_with, begins_with=Method.EFFECT)

    @property
    def kept_dtype(self) -> str:
        """Precision of projections until they are published; what a training may go on from stays whole."""
        return self.output_dtype if self.needs.factors else "float32"

    @property
    def strings(self) -> ProbeSpec:
        """The strings method `refine` trains on: others than `effect` is fitted on, and more."""
        return ProbeSpec(count=256, seed=1)

    @property
    def maps(self) -> MapSpec:
        """The strings method `probe` fits its maps on."""
        return MapSpec()

    @property
    def fit_rank(self) -> int:
        """Rank of updates that are fitted and not carried over."""
        return self.output_rank or EFFECT_RANK

    @property
    def transport_digest(self) -> str:
        """Digest of what decides the projected factors (not of how they are written)."""
        relevant: dict[str, object] = {"method": self.method, "version": ALGORITHM_VERSION}
        if self.needs.factors:
            relevant |= {"rank": self.rank, "factors": FACTORS_VERSION}
        if self.needs.probes:
            relevant |= {"fit": EFFECT_VERSION, "rank": self.fit_rank, "probes": asdict(self.probes)}
            relevant |= {"streams": asdict(self.streams)}
        if self.needs.training:
            trained = {"training": asdict(self.training), "strings": asdict(self.strings)}
            relevant |= trained | {"refine": REFINE_VERSION}
            if self.begins_with is not Method.EFFECT:
                relevant |= {"begins with": self.begins_with}
        if self.needs.maps:
            relevant |= {"maps": asdict(self.maps), "fit": MAPS_VERSION}
        if self.needs.alignment:
            relevant |= {"anchor": self.anchor, "tokens": ANCHOR_TOKENS}
        return content_digest(relevant)

    @property
    def digest(self) -> str:
        """Digest of every field that decides the result; how to train is one where the method trains."""
        fields = asdict(self) | {"version": ALGORITHM_VERSION}
        del fields["refine"]
        if not self.needs.training:
            del fields["training"]
        if self.begins_with is Method.EFFECT:
            del fields["begins_with"]
        if self.needs.factors:
            fields["factors"] = FACTORS_VERSION
        return content_digest(fields)
