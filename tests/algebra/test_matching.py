"""Greedy matching and correlations, against obvious oracles."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from cross_lora_core.algebra import Correlations, match_greedily
from tests.support.tolerances import assert_close


def obvious(scores):
    """Take the best score left until a side is used up."""
    left, pairs = {(i, j): float(v) for i, row in enumerate(scores) for j, v in enumerate(row)}, set()
    while left:
        i, j = max(left, key=lambda one: left[one])
        pairs.add((i, j))
        left = {key: value for key, value in left.items() if key[0] != i and key[1] != j}
    return pairs


@given(n=st.integers(1, 7), m=st.integers(1, 7), seed=st.integers(0, 999))
def test_the_best_score_left_is_taken_next(n, m, seed):
    scores = torch.rand(n, m, generator=torch.Generator().manual_seed(seed))
    rows, columns = match_greedily(scores)
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == obvious(scores)


@given(n=st.integers(1, 6), m=st.integers(1, 6), seed=st.integers(0, 999))
def test_equal_scores_end_in_a_whole_matching(n, m, seed):
    scores = torch.randint(0, 2, (n, m), generator=torch.Generator().manual_seed(seed)).float()
    rows, columns = match_greedily(scores)
    assert len(rows) == min(n, m)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == min(n, m)


@given(seed=st.integers(0, 99), offset=st.floats(-1e3, 1e3))
def test_correlations_are_pearsons_however_far_the_mean_is_from_zero(seed, offset):
    drawn = torch.Generator().manual_seed(seed)
    x, y = torch.randn(50, 3, generator=drawn).double() + offset, torch.randn(50, 2, generator=drawn).double()
    found = Correlations(x[:10].mean(0), y[:10].mean(0))
    found.add(x[:20], y[:20])
    found.add(x[20:], y[20:])
    wanted = torch.corrcoef(torch.cat([x, y], 1).T)[:3, 3:]
    assert_close(found.coefficients(), wanted)
    assert_close(found.spreads[0], x.std(0, correction=0))
