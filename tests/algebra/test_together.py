"""Several updates carried in one product come to what each comes to alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cross_lora_core.algebra import LoraFactors, SpectralFactors, coordinates, together

D_OUT, D_IN, RANK = 40, 24, 20


def update_of(rank: int, seed: int, dtype: torch.dtype = torch.float32, scaling: float = 0.5) -> LoraFactors:
    drawn = torch.Generator().manual_seed(seed)
    lora_A = torch.randn(rank, D_IN, generator=drawn).to(dtype)
    return LoraFactors(lora_A, torch.randn(D_OUT, rank, generator=drawn).to(dtype), scaling)


@pytest.fixture(scope="module")
def factors() -> SpectralFactors:
    drawn = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(D_OUT, RANK, generator=drawn)).Q
    V = torch.linalg.qr(torch.randn(D_IN, RANK, generator=drawn)).Q
    return SpectralFactors(U, torch.ones(RANK), V.T.contiguous(), 1.0)


@given(
    ranks=st.lists(st.sampled_from([1, 2, 8, 12, 16, 20, 32]), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_in_company_is_as_alone(factors, ranks, seed):
    updates = [update_of(rank, seed + number) for number, rank in enumerate(ranks)]
    found = together(updates, lambda one: coordinates(one, factors))
    assert [one.rank for one in found] == ranks
    for one, update in zip(found, updates, strict=True):
        alone = coordinates(update, factors)
        assert one.lora_A.is_contiguous()
        assert one.lora_B.is_contiguous()
        torch.testing.assert_close(one.lora_A, alone.lora_A, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(one.lora_B, alone.lora_B, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("ranks", "products"), [((16,), 1), ((16, 16), 1), ((16, 32, 12), 1), ((16, 8), 2), ((14, 14), 2)]
)
def test_only_ranks_that_round_alike_share_a_product(ranks, products):
    seen: list[int] = []

    def transfer(one: LoraFactors) -> LoraFactors:
        seen.append(one.rank)
        return one

    together([update_of(rank, rank) for rank in ranks], transfer)
    assert len(seen) == products
    assert sum(seen) == sum(ranks)


def test_double_precision_stays_and_is_not_spread():
    found = together([update_of(16, 1, torch.float64), update_of(16, 2)], lambda one: one)
    assert [one.lora_A.dtype for one in found] == [torch.float64, torch.float32]


def test_scaling_is_folded_in():
    (one, other) = together([update_of(16, 1, scaling=2.0), update_of(16, 2, scaling=1.0)], lambda one: one)
    assert (one.scaling, other.scaling) == (1.0, 1.0)
    assert torch.equal(one.lora_B, 2.0 * update_of(16, 1).lora_B)
