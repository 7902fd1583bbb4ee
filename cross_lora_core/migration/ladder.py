"""The ladder: which methods are tried for an adapter and a target, in which order, and why others are not.

A rung is an ordinary transfer with a method of its own. A request for one method
is a ladder of one rung; `auto` climbs from a plain copy to the methods that need
neither data nor training, and where it may to one that trains. What was tried is then chosen from by evidence
(`cross_lora_core.evaluation.choose`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cross_lora_core.migration.methods import METHOD_NEEDS, Method
from cross_lora_core.migration.similarity import RELATED, BaseSimilarity
from cross_lora_core.migration.spec import TransferSpec

__all__ = [
    "DATA_FREE",
    "TRAINING_OFF",
    "Ladder",
    "LeftOut",
    "PairFacts",
    "build_ladder",
    "possible_rungs",
]

DATA_FREE = (Method.EFFECT, Method.CROSS_LORA)
"""Methods `auto` tries besides a copy, the best measured first: without evidence the first is taken."""


_BEGINNINGS = (Method.COPY, Method.EFFECT)
"""What a training may go on from."""


TRAINING_OFF = "training is off unless it is asked for; --refine allows it"
"""Why `auto` leaves method `refine` out where nobody allowed it."""


@dataclass(frozen=True)
class PairFacts:
    """What decides about rungs, of one adapter and one target.

    Attributes:
        same_weights: source and target base are the same.
        equal_shapes: every module that lands has the same shape in both bases.
        similarity: of the bases; None where it was not measured.
        tokenizers: both bases have a tokenizer to tell shared tokens by.
        evaluation: there is a file to measure with.
    """

    same_weights: bool
    equal_shapes: bool
    similarity: BaseSimilarity | None
    tokenizers: bool
    evaluation: bool


@dataclass(frozen=True)
class LeftOut:
    """A method that is not tried, and why."""

    method: Method
    reason: str


@dataclass(frozen=True)
class Ladder:
    """The transfers tried, in order, and the methods that are not."""

    rungs: tuple[TransferSpec, ...]
    left_out: tuple[LeftOut, ...] = ()
    similarity: BaseSimilarity | None = None


def build_ladder(spec: TransferSpec, facts: PairFacts) -> Ladder:
    """The rungs of a request; a method that was asked for by name is the only one.

    Training goes on from a copy where the bases are related and shaped alike, else from what `effect` fits.
    """
    copied = not _unfit(replace(spec, method=Method.COPY), facts)
    spec = replace(spec, begins_with=Method.COPY if copied else Method.EFFECT)
    if spec.method is not Method.AUTO:
        return Ladder((_settled(spec),))
    rungs: list[TransferSpec] = []
    left_out: list[LeftOut] = []
    for method in _climbed():
        rung = _settled(replace(spec, method=method))
        reason = _unfit(rung, facts) or _needless(rungs, facts) or _forbidden(rung)
        if reason:
            left_out.append(LeftOut(method, reason))
        else:
            rungs.append(rung)
    return Ladder(tuple(rungs), tuple(left_out), facts.similarity)


def _climbed() -> tuple[Method, ...]:
    return (Method.COPY, *DATA_FREE, Method.REFINE)


def possible_rungs(spec: TransferSpec) -> tuple[TransferSpec, ...]:
    """Every transfer that a request may come to, whatever its adapters and bases are."""
    climbed = [one for one in _climbed() if not _forbidden(replace(spec, method=one))]
    methods = climbed if spec.method is Method.AUTO else [spec.method]
    begun = [replace(spec, method=one, begins_with=first) for one in methods for first in _BEGINNINGS]
    return tuple(dict.fromkeys(map(_settled, begun)))


def _settled(rung: TransferSpec) -> TransferSpec:
    """The transfer; what only a training begins with is told of no other."""
    return rung if rung.needs.training else replace(rung, begins_with=Method.EFFECT)


def _unfit(rung: TransferSpec, facts: PairFacts) -> str:
    """Why this pair of bases rules a method out; empty if it does not."""
    if METHOD_NEEDS[rung.method].equal_widths and not facts.equal_shapes:
        return "modules have other shapes in the target"
    if rung.method is Method.COPY and not _related(facts):
        found = f"{facts.similarity.cosine:.2f}" if facts.similarity else "unknown"
        return f"the bases are not related: similarity {found}, {RELATED} is needed"
    if rung.folded and not facts.tokenizers:
        return "a base without tokenizer.json: no shared tokens to pair singular vectors by"
    if METHOD_NEEDS[rung.method].probes and not facts.tokenizers:
        return "a base without tokenizer.json: no strings to run both bases on"
    return ""


def _needless(rungs: list[TransferSpec], facts: PairFacts) -> str:
    """Why the rungs before make another one pointless; empty if they do not."""
    if rungs and facts.same_weights:
        return "source and target have the same weights: a copy is exact"
    if rungs and not facts.evaluation:
        return "no evaluation file: nothing to choose by"
    return ""


def _forbidden(rung: TransferSpec) -> str:
    return TRAINING_OFF if rung.needs.training and not rung.refine else ""


def _related(facts: PairFacts) -> bool:
    return facts.same_weights or (facts.similarity is not None and facts.similarity.related)
