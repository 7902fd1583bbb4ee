from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cross_lora_core import algebra
from cross_lora_core.algebra import LoraFactors
from tests.support.oracle import dense, truncated
from tests.support.spectra import generator, random_update
from tests.support.tolerances import assert_close

SEEDS = st.integers(0, 10_000)


@given(st.integers(1, 8), st.integers(0, 8), SEEDS)
def test_a_larger_rank_is_exact(rank, more, seed):
    update = random_update(12, 9, rank, seed, scaling=1.7)
    grown = algebra.rerank(update, rank + more)
    assert grown.rank == rank + more
    assert_close(dense(grown), dense(update))


@given(st.integers(2, 8), st.integers(1, 7), SEEDS)
def test_a_smaller_rank_is_the_best_there_is(rank, smaller, seed):
    update = random_update(12, 9, rank, seed, scaling=0.3)
    cut = algebra.rerank(update, smaller)
    expected = truncated(dense(update), smaller)
    assert_close(dense(cut), expected)
    lost = float((dense(update) - expected).square().sum() / dense(update).square().sum())
    assert algebra.truncation_loss(update, smaller) == pytest.approx(lost, abs=1e-9)


def test_rank_above_the_widths_is_padded():
    update = random_update(3, 4, 8, 1)
    assert_close(dense(algebra.rerank(update, 8)), dense(update))


@given(st.floats(-6, 6), SEEDS)
def test_balance_keeps_the_product_and_equals_the_norms(exponent, seed):
    drawn = random_update(12, 9, 3, seed)
    lopsided = LoraFactors(drawn.lora_A * 10.0**exponent, drawn.lora_B * 10.0**-exponent, 2.0)
    level = algebra.balance(lopsided)
    assert_close(dense(level), dense(lopsided))
    assert float(level.lora_A.norm()) == pytest.approx(float(level.lora_B.norm()))
    assert level.scaling == 1.0


def test_balance_and_rerank_take_a_zero_update():
    nothing = algebra.zero(random_update(5, 6, 2, 1), 5, 6)
    assert not bool(dense(algebra.balance(nothing)).any())
    assert not bool(dense(algebra.rerank(nothing, 1)).any())
    assert algebra.truncation_loss(nothing, 1) == 0.0


@given(st.integers(1, 5), SEEDS)
def test_random_control_has_the_same_norm_rank_and_nothing_else(rank, seed):
    update = random_update(14, 11, rank, seed, scaling=0.8)
    control = algebra.random_like(update, 20, 7, seed=seed)
    assert (control.rank, control.d_out, control.d_in) == (rank, 20, 7)
    assert float(dense(control).norm()) == pytest.approx(float(dense(update).norm()))
    again = algebra.random_like(update, 20, 7, seed=seed)
    assert torch.equal(control.lora_A, again.lora_A)
    assert not torch.equal(control.lora_A, algebra.random_like(update, 20, 7, seed=seed + 1).lora_A)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_random_control_is_the_same_on_cuda():
    update = random_update(14, 11, 3, 1)
    there = LoraFactors(update.lora_A.cuda(), update.lora_B.cuda())
    drawn = algebra.random_like(there, 14, 11, 5)
    assert torch.allclose(drawn.lora_A.cpu(), algebra.random_like(update, 14, 11, 5).lora_A)


def test_interpolation_keeps_a_smooth_signal():
    ramp = torch.linspace(0, 1, 10, dtype=torch.float64)
    update = LoraFactors(ramp[None], ramp[:, None])
    moved = algebra.interpolate(update, 19, 28)
    assert_close(moved.lora_A[0], torch.linspace(0, 1, 28, dtype=torch.float64))
    assert_close(moved.lora_B[:, 0], torch.linspace(0, 1, 19, dtype=torch.float64))


@given(SEEDS)
def test_fused_slices_come_apart_and_together_exactly(seed):
    fused = random_update(12, 7, 3, seed, scaling=1.5)
    order = torch.randperm(12, generator=generator(seed))
    rows = [order[:4], order[4:7], order[7:]]
    parts = [(algebra.select_rows(fused, one), one) for one in rows]
    for part, one in parts:
        assert_close(dense(part), dense(fused)[one])
    joined = algebra.stack_outputs(parts, 12)
    assert joined.rank == 9
    assert_close(dense(joined), dense(fused))


def test_stacking_parts_of_different_widths_is_refused():
    first, second = random_update(2, 3, 1, 1), random_update(2, 4, 1, 2)
    with pytest.raises(ValueError, match="expected parts that read one width"):
        algebra.stack_outputs([(first, torch.tensor([0, 1])), (second, torch.tensor([2, 3]))], 4)


@given(SEEDS)
def test_folding_gains_comes_undone(seed):
    update = random_update(6, 8, 2, seed)
    gains = (
        torch.rand(8, generator=generator(seed)).double() + 0.2,
        torch.rand(6, generator=generator(seed)).double() + 0.2,
    )
    folded = algebra.fold_gains(update, *gains)
    assert_close(dense(folded), gains[1][:, None] * dense(update) * gains[0])
    assert_close(algebra.fold_weight(dense(update), *gains), dense(folded))
    assert_close(dense(algebra.unfold_gains(folded, *gains)), dense(update))


def test_dead_gains_become_zero_not_infinity():
    update = random_update(3, 3, 2, 1)
    gain = torch.tensor([1.0, 0.0, 1e-12], dtype=torch.float64)
    unfolded = dense(algebra.unfold_gains(update, gain, None))
    assert bool(torch.isfinite(unfolded).all())
    assert not bool(unfolded[:, 1:].any())


@given(SEEDS)
def test_measures_agree_with_dense_matrices(seed):
    first, second = random_update(9, 7, 2, seed, 0.5), random_update(9, 7, 3, seed + 1, -2.0)
    assert algebra.frobenius_norm(first) == pytest.approx(float(dense(first).norm()))
    assert algebra.inner_product(first, second) == pytest.approx(
        float((dense(first) * dense(second)).sum()), abs=1e-9
    )
    assert -1.0 <= algebra.cosine(first, second) <= 1.0
    assert algebra.cosine(first, first) == pytest.approx(1.0)


def test_cosine_and_retained_energy_of_nothing():
    nothing = algebra.zero(random_update(4, 4, 1, 1), 4, 4)
    factors = algebra.factorize(torch.eye(4), 2)
    assert algebra.cosine(nothing, nothing) == 0.0
    assert algebra.retained_energy(nothing, factors) == 1.0


def test_principal_angles_of_known_planes():
    eye = torch.eye(4)
    tilted = torch.stack([eye[:, 0], (eye[:, 1] + eye[:, 2]) / 2**0.5], dim=1)
    angles = algebra.principal_angles(eye[:, :2], tilted)
    assert angles.tolist() == pytest.approx([0.0, torch.pi / 4], abs=1e-7)


@pytest.mark.parametrize("shapes", [((2, 3), (4, 3)), ((2,), (4, 2))])
def test_factors_that_do_not_multiply_are_refused(shapes):
    with pytest.raises(ValueError, match="expected lora_A"):
        LoraFactors(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


@pytest.mark.parametrize("size", [1e-25, 1e-12, 1.0, 1e18])
@pytest.mark.parametrize("left", [1.0, 1e-3, 1e-7])
def test_a_norm_holds_where_columns_cancel_or_numbers_are_far_from_one(size, left):
    """B has two columns that are alike and A two rows that are opposite, up to a share `left`."""
    drawn = generator(3)
    column, row = torch.randn(300, 1, generator=drawn), torch.randn(1, 200, generator=drawn)
    lora_B = torch.cat([column, column * (1 + left)], dim=1) * size
    lora_A = torch.cat([row, -row])
    expected = float((lora_B.double() @ lora_A.double()).norm())
    assert algebra.frobenius_norm(LoraFactors(lora_A, lora_B, -2.0)) == pytest.approx(2 * expected, rel=1e-5)


def test_coordinates_that_are_known_give_the_same_transport_and_the_same_share():
    update = random_update(9, 7, 2, 5, 0.5)
    weights = (torch.randn(9, 7, generator=generator(seed), dtype=torch.float64) for seed in (1, 2))
    source, target = (algebra.factorize(weight, 4) for weight in weights)
    inside = algebra.coordinates(update, source)
    alignment = algebra.align(source, target)
    assert_close(
        dense(algebra.from_coordinates(inside, target, alignment)),
        dense(algebra.cross_lora(update, source, target, alignment)),
    )
    kept = source.U @ (source.U.T @ dense(update) @ source.Vh.T) @ source.Vh
    share = float((kept.norm() / dense(update).norm()) ** 2)
    assert algebra.retained_energy(update, source, inside) == pytest.approx(share)
    assert algebra.retained_energy(update, source) == pytest.approx(share)
