"""Invariant 3: a base rewritten in another basis, so that the exact answer is known.

A toy transformer layer is rewritten: the residual stream is rotated, norm gains
are folded into the weights that read it, heads and neurons are permuted. The
function is the same, so an update of the first base has one right counterpart
in the second, and an anchored transport has to find it without being told.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cross_lora_core import algebra
from cross_lora_core.algebra import LoraFactors, factorize
from tests.support.oracle import dense, inside
from tests.support.spectra import generator, orthogonal, random_update, slowly_decaying
from tests.support.tolerances import assert_close

D, HEADS, HEAD_DIM, NEURONS, TOKENS = 24, 4, 4, 40, 200
SHAPES = {
    "q": (HEADS * HEAD_DIM, D),
    "k": (HEADS * HEAD_DIM, D),
    "v": (HEADS * HEAD_DIM, D),
    "o": (D, HEADS * HEAD_DIM),
    "gate": (NEURONS, D),
    "up": (NEURONS, D),
    "down": (D, NEURONS),
}
WRITES = ("o", "down")


@dataclass(frozen=True)
class Toy:
    """Embedding, weights, and the gain in front of those that read the stream."""

    embedding: Tensor
    weights: dict[str, Tensor]
    gain: Tensor

    def gains(self, role: str) -> tuple[Tensor | None, Tensor | None]:
        return (None, None) if role in WRITES else (self.gain, None)


def toy(seed: int) -> Toy:
    drawn = generator(seed)
    weights = {
        role: slowly_decaying(*shape, seed + number) for number, (role, shape) in enumerate(SHAPES.items())
    }
    gain = 1.0 + 0.4 * torch.rand(D, generator=drawn, dtype=torch.float64)
    return Toy(torch.randn(TOKENS, D, generator=drawn, dtype=torch.float64), weights, gain)


@dataclass(frozen=True)
class Rewriting:
    rotation: Tensor
    heads: Tensor
    neurons: Tensor

    def apply(self, role: str, folded: Tensor) -> Tensor:
        """A weight or update in the new basis; `folded` acts on the normalised stream."""
        inner = self.heads if role in ("q", "k", "v", "o") else self.neurons
        if role in WRITES:
            return self.rotation @ folded @ inner.T
        return inner @ folded @ self.rotation.T


def rewriting(seed: int) -> Rewriting:
    drawn = generator(seed)
    heads = torch.block_diag(*[torch.eye(HEAD_DIM)] * HEADS).reshape(HEADS, HEAD_DIM, -1)
    order = torch.randperm(HEADS, generator=drawn)
    neurons = torch.eye(NEURONS)[torch.randperm(NEURONS, generator=drawn)]
    return Rewriting(
        orthogonal(D, seed), heads[order].reshape(-1, HEADS * HEAD_DIM).double(), neurons.double()
    )


def rewritten(base: Toy, change: Rewriting) -> Toy:
    weights = {
        role: change.apply(role, algebra.fold_weight(weight, *base.gains(role)))
        for role, weight in base.weights.items()
    }
    return Toy(base.embedding @ change.rotation.T, weights, torch.ones(D, dtype=torch.float64))


def migrate(
    role: str, update: LoraFactors, source: Toy, target: Toy, rank: int
) -> tuple[LoraFactors, Tensor]:
    """The flow's steps on one module; also the part of the folded update the kept vectors can carry."""
    ours = factorize(algebra.fold_weight(source.weights[role], *source.gains(role)), rank)
    theirs = factorize(algebra.fold_weight(target.weights[role], *target.gains(role)), rank)
    rows = torch.nn.functional.normalize(source.embedding), torch.nn.functional.normalize(target.embedding)
    side = {"output_anchor": rows} if role in WRITES else {"input_anchor": rows}
    folded = algebra.fold_gains(update, *source.gains(role))
    moved = algebra.cross_lora(folded, ours, theirs, algebra.align(ours, theirs, **side))
    return algebra.unfold_gains(moved, *target.gains(role)), inside(dense(folded), ours)


@pytest.mark.parametrize("role", SHAPES)
@given(seed=st.integers(0, 1000), rank=st.integers(4, 24))
def test_the_planted_answer_is_found(role, seed, rank):
    source, change = toy(seed), rewriting(seed + 50)
    target = rewritten(source, change)
    moved, carried = migrate(role, random_update(*SHAPES[role], 3, seed + 90), source, target, rank)
    assert_close(dense(moved), change.apply(role, carried), torch.float32)


@pytest.mark.parametrize("role", SHAPES)
def test_it_is_exact_at_full_rank_for_an_update_the_weight_can_carry(role):
    source, change = toy(3), rewriting(4)
    target = rewritten(source, change)
    weight = algebra.fold_weight(source.weights[role], *source.gains(role))
    drawn = random_update(*SHAPES[role], 3, 5)
    span = factorize(weight, min(weight.shape))
    within = LoraFactors(drawn.lora_A @ span.Vh.T @ span.Vh, span.U @ (span.U.T @ drawn.lora_B))
    update = algebra.unfold_gains(within, *source.gains(role))
    moved, _ = migrate(role, update, source, target, min(weight.shape))
    assert_close(dense(moved), change.apply(role, dense(within)), torch.float32)


@pytest.mark.parametrize("role", ["q", "gate"])
def test_without_folding_the_gains_it_is_not_found(role):
    """The control of this file: the test would notice if gains were left out."""
    source, change = toy(3), rewriting(4)
    target = rewritten(source, change)
    plain = Toy(source.embedding, source.weights, torch.ones(D, dtype=torch.float64))
    update = random_update(*SHAPES[role], 3, 5)
    moved, _ = migrate(role, update, plain, target, 16)
    _, carried = migrate(role, update, source, target, 16)
    expected = change.apply(role, carried)
    assert float((dense(moved) - expected).norm()) > 0.05 * float(expected.norm())


def test_the_rewritten_base_computes_the_same():
    """The control of the plant itself: a gated layer on a normalised stream gives the same stream."""
    source, change = toy(1), rewriting(2)
    target = rewritten(source, change)

    def layer(base: Toy, stream: Tensor) -> Tensor:
        normed = stream / stream.square().mean(-1, keepdim=True).sqrt() * base.gain
        hidden = torch.nn.functional.silu(normed @ base.weights["gate"].T) * (normed @ base.weights["up"].T)
        return stream + hidden @ base.weights["down"].T

    stream = source.embedding[:5]
    assert_close(layer(target, stream @ change.rotation.T), layer(source, stream) @ change.rotation.T)
