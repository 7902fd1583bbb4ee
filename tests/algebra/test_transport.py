"""The invariants of a transport, each against dense float64 matrices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cross_lora_core import algebra
from cross_lora_core.algebra import Alignment, LoraFactors, SpectralFactors, WidthMismatch, factorize
from tests.support.oracle import dense, inside, projector
from tests.support.spectra import generator, orthogonal, random_update, slowly_decaying, with_spectrum
from tests.support.tolerances import assert_close

SEEDS = st.integers(0, 10_000)
WIDTHS = st.tuples(st.integers(4, 24), st.integers(4, 24), st.integers(4, 24), st.integers(4, 24))
EVERY = ("cross-lora", "interpolate", "subspace", "subspace+null", "copy")


def embedding(width: int, seed: int, tokens: int = 90) -> torch.Tensor:
    return torch.randn(tokens, width, generator=generator(seed), dtype=torch.float64)


def anchored(source: SpectralFactors, target: SpectralFactors, seed: int) -> Alignment:
    rows = embedding(source.Vh.shape[1], seed), embedding(target.Vh.shape[1], seed + 1)
    return algebra.align(source, target, input_anchor=rows)


def transfer(
    method: str, update: LoraFactors, source: SpectralFactors, target: SpectralFactors
) -> LoraFactors:
    d_out, d_in = target.U.shape[0], target.Vh.shape[1]
    return {
        "cross-lora": lambda: algebra.cross_lora(update, source, target, anchored(source, target, 1)),
        "interpolate": lambda: algebra.interpolate(update, d_out, d_in),
        "subspace": lambda: algebra.subspace(update, target),
        "subspace+null": lambda: algebra.subspace_and_null(update, source, target),
        "copy": lambda: algebra.copy(update, d_out, d_in),
    }[method]()


def a_pair(seed: int, rank: int = 8, size: int = 16) -> tuple[SpectralFactors, SpectralFactors]:
    return (
        factorize(slowly_decaying(size, size, seed), rank),
        factorize(slowly_decaying(size, size, seed + 7), rank),
    )


@given(WIDTHS, st.integers(1, 12), SEEDS)
def test_cross_lora_is_the_transforms_applied_to_the_update(widths, rank, seed):
    m, n, p, q = widths
    source = factorize(slowly_decaying(m, n, seed), rank)
    target = factorize(slowly_decaying(p, q, seed + 3), rank)
    update = random_update(m, n, 3, seed + 5, scaling=0.5)
    maps = anchored(source, target, seed)
    P_U = target.U @ maps.output @ source.U.T
    P_V = target.Vh.T @ maps.input @ source.Vh
    moved = algebra.cross_lora(update, source, target, maps)
    assert moved.rank == update.rank
    assert_close(dense(moved), P_U @ dense(update) @ P_V.T)


@given(st.integers(1, 16), SEEDS)
def test_subspace_is_equation_seven_read_literally(rank, seed):
    target = factorize(slowly_decaying(16, 12, seed), rank)
    update = random_update(16, 12, 3, seed)
    expected = projector(target.U) @ dense(update) @ projector(target.Vh.T)
    assert_close(dense(algebra.subspace(update, target)), expected)


@given(st.integers(1, 16), SEEDS)
def test_subspace_and_null_is_the_split(rank, seed):
    source, target = (
        factorize(slowly_decaying(16, 12, seed), rank),
        factorize(slowly_decaying(16, 12, seed + 9), rank),
    )
    update = random_update(16, 12, 2, seed)
    eye_out, eye_in = torch.eye(16, dtype=torch.float64), torch.eye(12, dtype=torch.float64)
    null = (eye_out - projector(source.U)) @ dense(update) @ (eye_in - projector(source.Vh.T))
    expected = projector(target.U) @ inside(dense(update), source) @ projector(target.Vh.T)
    expected = expected + (eye_out - projector(target.U)) @ null @ (eye_in - projector(target.Vh.T))
    assert_close(dense(algebra.subspace_and_null(update, source, target)), expected)


# 1. the identity hop


@given(st.integers(1, 16), SEEDS)
def test_same_base_gives_back_the_update_up_to_the_discarded_energy(rank, seed):
    factors = factorize(slowly_decaying(16, 16, seed), rank)
    update = random_update(16, 16, 3, seed)
    rows = embedding(16, seed)
    maps = algebra.align(factors, factors, input_anchor=(rows, rows))
    moved = algebra.cross_lora(update, factors, factors, maps)
    assert_close(dense(moved), inside(dense(update), factors))
    kept = float(dense(moved).square().sum() / dense(update).square().sum())
    assert algebra.retained_energy(update, factors) == pytest.approx(kept, abs=1e-9)


@given(SEEDS)
def test_same_base_at_full_rank_is_exact_for_every_anchored_method_and_copy(seed):
    factors = factorize(slowly_decaying(16, 16, seed), 16)
    update = random_update(16, 16, 3, seed)
    rows = embedding(16, seed)
    maps = algebra.align(factors, factors, input_anchor=(rows, rows))
    assert_close(dense(algebra.cross_lora(update, factors, factors, maps)), dense(update))
    assert_close(dense(algebra.copy(update, 16, 16)), dense(update))
    assert_close(dense(algebra.interpolate(update, 16, 16)), dense(update))


# 2. signs and clusters


@given(SEEDS, st.booleans())
def test_signs_of_singular_pairs_do_not_matter(seed, output_side):
    source, target = a_pair(seed)
    update = random_update(16, 16, 3, seed)
    rows = embedding(16, seed), embedding(16, seed + 1)
    side = {"output_anchor": rows} if output_side else {"input_anchor": rows}

    def moved(one: SpectralFactors, other: SpectralFactors) -> torch.Tensor:
        return dense(algebra.cross_lora(update, one, other, algebra.align(one, other, **side)))

    assert_close(
        moved(flipped(source, seed), flipped(target, seed + 1)), moved(source, target), torch.float32
    )


def flipped(factors: SpectralFactors, seed: int) -> SpectralFactors:
    signs = torch.randint(0, 2, (factors.rank,), generator=generator(seed)).double() * 2 - 1
    return SpectralFactors(factors.U * signs, factors.S, factors.Vh * signs[:, None], factors.energy)


@given(SEEDS)
def test_rotation_inside_a_degenerate_cluster_does_not_matter(seed):
    spectrum = torch.tensor([3.0, 2.0, 2.0, 2.0, 1.5, 1.5, 1.0, 0.5], dtype=torch.float64)
    source = factorize(with_spectrum(16, 16, spectrum, seed), 8)
    target = factorize(with_spectrum(16, 16, spectrum.flip(0).sort(descending=True).values, seed + 3), 8)
    update = random_update(16, 16, 3, seed)
    rotation = torch.block_diag(
        torch.ones(1, 1), orthogonal(3, seed), orthogonal(2, seed + 1), torch.ones(1, 1), torch.ones(1, 1)
    ).double()
    turned = SpectralFactors(source.U @ rotation, source.S, rotation.T @ source.Vh, source.energy)
    rows = embedding(16, seed), embedding(16, seed + 1)
    results = [
        dense(algebra.cross_lora(update, one, target, algebra.align(one, target, input_anchor=rows)))
        for one in (source, turned)
    ]
    assert_close(results[1], results[0], torch.float32)


def test_index_pairing_does_depend_on_signs_which_is_why_anchors_exist():
    source, target = a_pair(3)
    update = random_update(16, 16, 3, 3)
    results = [
        algebra.cross_lora(update, one, target, algebra.align(one, target))
        for one in (source, flipped(source, 5))
    ]
    assert abs(algebra.cosine(*results)) < 0.9


# 4. gauge and scale


@given(st.sampled_from(EVERY), SEEDS)
def test_the_factors_own_coordinates_do_not_matter(method, seed):
    source, target = a_pair(seed)
    update = random_update(16, 16, 3, seed)
    G = torch.randn(3, 3, generator=generator(seed), dtype=torch.float64) + 3 * torch.eye(
        3, dtype=torch.float64
    )
    changed = LoraFactors(torch.linalg.inv(G) @ update.lora_A, update.lora_B @ G)
    assert_close(
        dense(transfer(method, changed, source, target)),
        dense(transfer(method, update, source, target)),
        torch.float32,
    )


@given(st.sampled_from(EVERY), st.floats(-4, 4), SEEDS)
def test_linear_in_the_scaling(method, factor, seed):
    source, target = a_pair(seed)
    update = random_update(16, 16, 3, seed)
    scaled = LoraFactors(update.lora_A, update.lora_B, factor)
    assert_close(
        dense(transfer(method, scaled, source, target)),
        factor * dense(transfer(method, update, source, target)),
    )


# anchors and refusals


def test_unequal_widths_are_refused_where_the_method_has_none():
    source, target = factorize(slowly_decaying(8, 8, 1), 4), factorize(slowly_decaying(10, 8, 2), 4)
    update = random_update(8, 8, 2, 1)
    with pytest.raises(WidthMismatch, match="expected an update of 10x8, got 8x8"):
        algebra.subspace(update, target)
    with pytest.raises(WidthMismatch):
        algebra.subspace_and_null(update, source, target)
    with pytest.raises(WidthMismatch):
        algebra.copy(update, 8, 10)
    with pytest.raises(WidthMismatch):
        algebra.cross_lora(random_update(9, 8, 2, 1), source, target, algebra.align(source, target))


def test_anchor_rows_that_do_not_fit_are_refused():
    source, target = factorize(slowly_decaying(8, 8, 1), 4), factorize(slowly_decaying(10, 8, 2), 4)
    with pytest.raises(ValueError, match="expected anchor rows"):
        algebra.align(source, target, input_anchor=(embedding(9, 1), embedding(8, 1)))
    with pytest.raises(ValueError, match="expected anchor rows"):
        algebra.align(source, target, input_anchor=(embedding(8, 1, 10), embedding(8, 1, 11)))


@given(SEEDS)
def test_maps_are_partial_isometries(seed):
    source, target = factorize(slowly_decaying(20, 12, seed), 6), factorize(slowly_decaying(14, 18, seed), 9)
    maps = anchored(source, target, seed)
    for one in (maps.output, maps.input):
        assert one.shape == (9, 6)
        values = torch.linalg.svdvals(one)
        assert bool(((values - 1).abs() < 1e-9).logical_or(values < 1e-9).all())


def test_polar_leaves_null_directions_out():
    matrix = torch.diag(torch.tensor([2.0, 0.5, 0.0]))
    assert_close(algebra.polar(matrix), torch.diag(torch.tensor([1.0, 1.0, 0.0])), torch.float32)
    assert not bool(algebra.polar(torch.zeros(3, 2)).any())


@pytest.mark.parametrize(
    "method", ["cross-lora", "interpolate", "subspace", "subspace+null", "copy", "zero", "random"]
)
def test_the_dense_update_is_never_formed(method):
    """500,000 x 500,000 float32 would be a terabyte."""
    wide, k = 500_000, 2
    drawn = generator(0)
    basis = torch.nn.functional.normalize(torch.randn(k, wide, generator=drawn), dim=1)
    factors = SpectralFactors(basis.T, torch.ones(k), basis, 1.0)
    update = LoraFactors(torch.randn(1, wide, generator=drawn), torch.randn(wide, 1, generator=drawn))
    moved = {
        "zero": lambda: algebra.zero(update, wide, wide),
        "random": lambda: algebra.random_like(update, wide, wide, 1),
        "cross-lora": lambda: algebra.cross_lora(update, factors, factors, algebra.align(factors, factors)),
    }.get(method, lambda: transfer(method, update, factors, factors))()
    assert (moved.d_out, moved.d_in) == (wide, wide)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_updates_are_computed_in_float32(dtype):
    source, target = a_pair(1)
    source, target = (
        SpectralFactors(one.U.float(), one.S.float(), one.Vh.float(), one.energy) for one in (source, target)
    )
    update = random_update(16, 16, 3, 1)
    half = LoraFactors(update.lora_A.to(dtype), update.lora_B.to(dtype))
    maps = algebra.align(source, target)
    moved = algebra.cross_lora(half, source, target, maps)
    assert moved.lora_A.dtype == torch.float32
    single = LoraFactors(update.lora_A.float(), update.lora_B.float())
    assert_close(dense(moved), dense(algebra.cross_lora(single, source, target, maps)), dtype)
