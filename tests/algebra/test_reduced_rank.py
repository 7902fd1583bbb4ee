from __future__ import annotations

import pytest
import torch

from cross_lora_core.algebra import Moments, fit_writer, reduced_rank_ridge, ridge_map


def pairs(seed: int, n: int = 400, d_in: int = 12, d_out: int = 7, noise: float = 0.1):
    made = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d_in, generator=made) @ torch.diag(torch.logspace(0, -2, d_in))
    true = torch.randn(d_out, 2, generator=made) @ torch.randn(2, d_in, generator=made)
    return x, x @ true.T + noise * torch.randn(n, d_out, generator=made)


def summed(x, y) -> Moments:
    moments = Moments(x.shape[1], y.shape[1])
    moments.add(x, y)
    return moments


def loss(W, x, y, ridge: float) -> float:
    unit = ridge * float((x.double().T @ x.double()).diagonal().mean())
    return float((y.double() - x.double() @ W.double().T).pow(2).sum() + unit * W.double().pow(2).sum())


@pytest.mark.parametrize("seed", range(5))
def test_full_rank_is_the_ridge_map(seed):
    x, y = pairs(seed)
    moments = summed(x, y)
    found = reduced_rank_ridge(moments, 0.05, rank=100)
    assert found.rank == 7
    torch.testing.assert_close(
        (found.lora_B @ found.lora_A).double(), ridge_map(moments, 0.05), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_no_other_update_of_the_rank_does_better(rank):
    x, y = pairs(3)
    found = reduced_rank_ridge(summed(x, y), 0.01, rank)
    best = loss(found.lora_B @ found.lora_A, x, y, 0.01)
    full = ridge_map(summed(x, y), 0.01)
    U, S, Vh = torch.linalg.svd(full)
    assert best <= loss(U[:, :rank] * S[:rank] @ Vh[:rank], x, y, 0.01) * (1 + 1e-6)  # plain truncation
    made = torch.Generator().manual_seed(rank)
    for _ in range(50):
        A = found.lora_A + 0.02 * torch.randn(found.lora_A.shape, generator=made)
        B = found.lora_B + 0.02 * torch.randn(found.lora_B.shape, generator=made)
        assert loss(B @ A, x, y, 0.01) >= best * (1 - 1e-6)


def test_what_never_responds_gives_no_update():
    found = reduced_rank_ridge(summed(torch.zeros(9, 4), torch.randn(9, 3)), 0.1, 2)
    assert not (found.lora_B @ found.lora_A).any()


@pytest.mark.parametrize("arguments", [(0.0, 2), (0.1, 0)])
def test_a_ridge_and_a_rank_are_needed(arguments):
    with pytest.raises(ValueError, match="positive ridge and rank"):
        reduced_rank_ridge(summed(*pairs(0)), *arguments)


def test_moments_that_are_not_finite_are_refused():
    x, y = pairs(0)
    x[0, 0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        reduced_rank_ridge(summed(x, y), 0.1, 2)


def writer_case(seed: int, *, gain: torch.Tensor | None, d: int = 16):
    """A module whose output should change by a known update of rank 2."""
    made = torch.Generator().manual_seed(seed)
    x = torch.randn(600, 24, generator=made)
    W = torch.randn(d, 24, generator=made) / 5
    delta = 0.3 * torch.randn(d, 2, generator=made) @ torch.randn(2, 24, generator=made) / 5

    def written(y):
        return y if gain is None else gain * y / (y.pow(2).mean(1, keepdim=True) + 1e-6).sqrt()

    outputs = x @ W.T
    missing = written(outputs + x @ delta.T) - written(outputs)
    held_out = torch.arange(600) % 4 == 0
    return x, outputs, missing, torch.ones(600), held_out


@pytest.mark.parametrize("seed", range(3))
def test_a_writer_learns_what_is_missing(seed):
    fit = fit_writer(*writer_case(seed, gain=None), gain=None, rank=2, ridge=1e-4)
    assert fit.explained > 0.999


@pytest.mark.parametrize("seed", range(3))
def test_a_writer_learns_through_a_norm_with_tiny_gains(seed):
    gain = torch.logspace(0, -4, 16)
    fit = fit_writer(*writer_case(seed, gain=gain), gain=gain, rank=4, ridge=1e-3)
    assert fit.explained > 0.9


def test_noise_is_left_out():
    x, outputs, missing, weights, held_out = writer_case(0, gain=None)
    noise = torch.randn(missing.shape, generator=torch.Generator().manual_seed(9))
    fit = fit_writer(x, outputs, noise, weights, held_out, gain=None, rank=8, ridge=1e-6)
    assert 0 <= fit.explained < 0.02
    weak = fit_writer(x, outputs, missing, weights, held_out, gain=None, rank=2, ridge=1e-6)
    assert (
        fit.update.lora_B.norm() * fit.update.lora_A.norm()
        < weak.update.lora_B.norm() * weak.update.lora_A.norm()
    )


def test_heavier_positions_are_fitted_better():
    x, outputs, missing, _, _ = writer_case(1, gain=None)
    half, held_out = torch.arange(600) % 2 == 0, torch.arange(600) % 3 == 0
    other = torch.where(half[:, None], missing, -missing)
    for heavy in (half, ~half):
        weights = torch.where(heavy, 1.0, 1e-3)
        fit = fit_writer(x, outputs, other, weights, held_out, gain=None, rank=2, ridge=1e-4)
        assert fit.explained > 0.9
        left = other[heavy] - x[heavy] @ fit.update.lora_A.T @ fit.update.lora_B.T
        assert left.norm() < 0.2 * other[heavy].norm()
