"""Moments about the means, summed batch by batch."""

from __future__ import annotations

import pytest
import torch

from cross_lora_core.algebra import CentredMoments, Moments


def test_moments_about_the_means_are_those_of_centred_pairs():
    random = torch.Generator().manual_seed(3)
    x, y = torch.randn(40, 5, generator=random) + 3, torch.randn(40, 4, generator=random) - 2
    weights = torch.rand(40, generator=random)
    streamed = CentredMoments(x[:15].mean(0), y[:15].mean(0))
    for part in (slice(0, 15), slice(15, 40)):
        streamed.add(x[part], y[part], weights[part])
    share = weights[:, None] / weights.sum()
    centred = Moments(5, 4)
    centred.add(x - (share * x).sum(0), y - (share * y).sum(0), weights)
    found = streamed.about_means()
    torch.testing.assert_close(found.xx, centred.xx, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.yx, centred.yx, atol=1e-5, rtol=1e-5)
    assert found.yy == pytest.approx(centred.yy, rel=1e-5)
    assert found.count == 40
    assert not CentredMoments(torch.zeros(5), torch.zeros(4)).about_means().xx.any()


def test_a_coordinate_whose_mean_is_huge_keeps_its_spread():
    random = torch.Generator().manual_seed(4)
    spread = torch.randn(64, 3, generator=random)
    x = spread + torch.tensor([0.0, 0.0, 4096.0])
    streamed = CentredMoments(x[:32].mean(0), x[:32].mean(0))
    for part in (slice(0, 32), slice(32, 64)):
        streamed.add(x[part], x[part], torch.ones(32))
    wanted = (spread - spread.mean(0)).double()
    torch.testing.assert_close(streamed.about_means().xx, wanted.T @ wanted, atol=0.1, rtol=1e-2)
