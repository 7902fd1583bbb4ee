from __future__ import annotations

import math

import pytest
import torch

from cross_lora_core.evaluation import gap_recovered, paired_bootstrap, standard_error
from cross_lora_core.evaluation import statistics as module
from cross_lora_core.evaluation.statistics import t_quantile

TABLE = [
    (0.975, 1, 12.706),
    (0.95, 2, 2.920),
    (0.975, 2, 4.303),
    (0.9995, 3, 12.924),
    (0.995, 7, 3.499),
    (0.95, 10, 1.812),
    (0.995, 39, 2.708),
    (0.975, 120, 1.980),
    (0.995, 1000, 2.581),
]
"""Probability, degrees of freedom, quantile: printed tables of Student's t."""


@pytest.mark.parametrize(("probability", "degrees", "expected"), TABLE)
def test_quantiles_of_students_t_are_those_of_the_tables(probability, degrees, expected):
    assert t_quantile(probability, degrees) == pytest.approx(expected, abs=5e-4)
    assert t_quantile(1 - probability, degrees) == pytest.approx(-expected, abs=5e-4)


@pytest.mark.parametrize(("probability", "degrees"), [(0.0, 3), (1.0, 3), (0.9, 0)])
def test_quantiles_that_do_not_exist(probability, degrees):
    with pytest.raises(ValueError, match="expected"):
        t_quantile(probability, degrees)


def test_the_standard_error_is_that_of_the_mean():
    assert standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx(math.sqrt(5 / 3) / 2)
    with pytest.raises(ValueError, match="two values"):
        standard_error([1.0])


def coverage(rows: int, trials: int = 800) -> float:
    """How often the 95 % interval of the mean of normal differences holds the truth."""
    drawn, covered = torch.Generator().manual_seed(rows), 0
    for seed in range(trials):
        values = (0.3 + torch.randn(rows, generator=drawn, dtype=torch.float64)).tolist()
        interval = paired_bootstrap(values, draws=1000, seed=seed)
        covered += interval.low <= 0.3 <= interval.high
    return covered / trials


@pytest.mark.parametrize("rows", [8, 40])
def test_intervals_hold_the_truth_as_often_as_they_say_and_plain_ones_less(rows, monkeypatch):
    expanded = coverage(rows)
    monkeypatch.setattr(module, "_expanded_tail", lambda _rows, confidence: (1 - confidence) / 2)
    plain = coverage(rows)
    assert 0.93 <= expanded <= 0.97  # 2.5 standard errors of 800 trials
    assert abs(expanded - 0.95) < abs(plain - 0.95)


def test_resampling_in_pieces_is_resampling(monkeypatch):
    values = torch.randn(2, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = module._resampled_means(values, 500, 3)
    monkeypatch.setattr(module, "CHUNK_VALUES", 30 * 7)
    pieces = module._resampled_means(values, 500, 3)
    assert torch.equal(whole, pieces)
    assert len(pieces[0].unique()) > 490
    # one set of rows for both: the mean of a sum is the sum of the means
    (both,) = module._resampled_means(values.sum(dim=0, keepdim=True), 500, 3)
    torch.testing.assert_close(both, pieces.sum(dim=0))


def losses(rows: int, share: float, gain: float, noise: float, seed: int) -> tuple[list[float], ...]:
    """Target, migrated and trained losses; training gains `gain` and migration `share` of that, give or take."""
    drawn = torch.Generator().manual_seed(seed)
    target = 1.0 + torch.rand(rows, generator=drawn, dtype=torch.float64)
    gains = gain * (1 + noise * torch.randn(rows, generator=drawn, dtype=torch.float64))
    moved = share * gain * (1 + noise * torch.randn(rows, generator=drawn, dtype=torch.float64))
    return target.tolist(), (target - moved).tolist(), (target - gains).tolist()


@pytest.mark.parametrize("share", [-0.5, 0.0, 0.4, 1.0])
def test_the_gap_recovered_is_a_share_of_what_training_gains(share):
    found = gap_recovered(*losses(60, share, gain=0.8, noise=0.3, seed=1), confidence=0.99)
    assert found.reason == ""
    assert found.share is not None
    assert found.share.low <= share <= found.share.high
    assert found.share.mean == pytest.approx(share, abs=0.1)


def test_intervals_of_the_gap_hold_the_truth():
    covered = 0
    for seed in range(300):
        found = gap_recovered(*losses(40, 0.4, gain=0.8, noise=0.5, seed=seed), draws=1000, seed=seed)
        assert found.share is not None
        covered += found.share.low <= 0.4 <= found.share.high
    assert 0.91 <= covered / 300 <= 0.98


def test_rows_are_paired():
    """Rows differ far more than adapters do: only the pairing tells them apart."""
    target, migrated, trained = losses(40, 0.5, gain=0.01, noise=0.1, seed=2)
    paired = gap_recovered(target, migrated, trained)
    assert paired.share is not None
    assert paired.share.high - paired.share.low < 0.1
    assert gap_recovered(target, migrated, trained[1:] + trained[:1]).share is None


def test_no_gain_is_no_share():
    found = gap_recovered(*losses(40, 1.0, gain=0.0, noise=0.0, seed=0))
    assert found.share is None
    assert "cannot be told from chance" in found.reason
    noisy = losses(12, 0.5, gain=0.02, noise=8.0, seed=3)
    assert gap_recovered(*noisy, confidence=0.99).share is None


def test_what_cannot_be_resampled_is_no_share():
    assert "two are the least" in gap_recovered([1.0], [0.5], [0.4]).reason
    assert "not finite" in gap_recovered([1.0, 1.0], [0.5, math.nan], [0.4, 0.4]).reason
