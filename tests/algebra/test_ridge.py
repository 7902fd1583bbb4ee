"""Ridge maps from streamed moments against a dense least-squares oracle on all rows at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cross_lora_core.algebra import Moments, choose_ridge, held_out_error, ridge_map
from tests.support.spectra import generator
from tests.support.tolerances import assert_close


def rows(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def streamed(x: Tensor, y: Tensor, weights: Tensor | None = None, batch: int = 7) -> Moments:
    moments = Moments(x.shape[1], y.shape[1])
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        moments.add(x[part], y[part], None if weights is None else weights[part])
    return moments


def oracle(x: Tensor, y: Tensor, ridge: float, weights: Tensor | None = None) -> Tensor:
    """Least squares with the ridge written as further rows, and weights as scaled ones."""
    root = torch.ones(len(x), 1).double() if weights is None else weights.sqrt()[:, None]
    x, y = root * x, root * y
    penalty = (ridge * x.square().sum() / x.shape[1]).sqrt() * torch.eye(x.shape[1]).double()
    rows_x = torch.cat([x, penalty])
    rows_y = torch.cat([y, torch.zeros(x.shape[1], y.shape[1]).double()])
    return torch.linalg.lstsq(rows_x, rows_y).solution.T


@given(
    seed=st.integers(0, 1000),
    sizes=st.tuples(st.integers(30, 60), st.integers(1, 9), st.integers(1, 9)),
    ridge=st.sampled_from([0.0, 1e-4, 0.1, 10.0]),
    weighted=st.booleans(),
)
def test_it_is_the_least_squares_solution(seed, sizes, ridge, weighted):
    n, d_x, d_y = sizes
    x, y = rows(n, d_x, seed), rows(n, d_y, seed + 1)
    weights = rows(n, 1, seed + 2)[:, 0].square() + 0.1 if weighted else None
    moments = streamed(x, y, weights)
    assert moments.count == n
    assert_close(ridge_map(moments, ridge), oracle(x, y, ridge, weights))


@given(seed=st.integers(0, 1000), weighted=st.booleans())
def test_the_held_out_error_is_that_of_the_rows(seed, weighted):
    x, y = rows(40, 6, seed), rows(40, 4, seed + 1)
    weights = rows(40, 1, seed + 2)[:, 0].square() if weighted else torch.ones(40).double()
    G = rows(4, 6, seed + 3)
    left = (weights * (y - x @ G.T).square().sum(1)).sum() / (weights * y.square().sum(1)).sum()
    assert held_out_error(G, streamed(x, y, weights)) == pytest.approx(float(left), rel=1e-9)
    assert held_out_error(torch.zeros(4, 6), streamed(x, y)) == 1.0


def test_a_true_map_is_found_and_predicts_the_held_out_rows():
    truth, x = rows(5, 8, 1), rows(200, 8, 2)
    choice = choose_ridge(
        streamed(x[:150], x[:150] @ truth.T), streamed(x[150:], x[150:] @ truth.T), [1, 1e-9]
    )
    assert choice.ridge == 1e-9
    assert choice.error < 1e-12
    assert_close(choice.map, truth, torch.float32)


def test_noise_asks_for_a_larger_ridge_than_the_fit_itself_would_take():
    """The choice rests on the held-out rows: on the fitted rows the smallest ridge always wins."""
    truth, x = rows(6, 30, 1), rows(80, 30, 2)
    y = x @ truth.T + 20.0 * rows(80, 6, 3)
    fitted, held_out = streamed(x[:40], y[:40]), streamed(x[40:], y[40:])
    grid = [1e-6, 1e-2, 1.0, 10.0]
    assert choose_ridge(fitted, held_out, grid).ridge >= 1.0
    assert choose_ridge(fitted, fitted, grid).ridge == 1e-6


def test_slack_takes_the_largest_ridge_that_is_nearly_as_good():
    truth, x = rows(6, 30, 1), rows(400, 30, 2)
    y = x @ truth.T + rows(400, 6, 3)
    fitted, held_out = streamed(x[:300], y[:300]), streamed(x[300:], y[300:])
    grid = [10.0 ** (power / 4) for power in range(-24, 9)]
    best, slack = choose_ridge(fitted, held_out, grid), choose_ridge(fitted, held_out, grid, 0.05)
    assert slack.ridge > best.ridge
    assert best.error < slack.error <= 1.05 * best.error
    assert (
        choose_ridge(fitted, held_out, [one for one in grid if one > slack.ridge]).error > 1.05 * best.error
    )


def test_float32_products_are_precise_enough_beside_massive_coordinates():
    x = rows(4000, 64, 1) @ rows(64, 64, 2)
    x[:, :3] *= 1000
    y = x @ rows(32, 64, 3).T + rows(4000, 32, 4)
    exact, single = streamed(x, y, batch=500), streamed(x.float(), y.float(), batch=500)
    assert_close(ridge_map(single, 1e-2), ridge_map(exact, 1e-2), torch.float32)


def test_what_cannot_be_solved_is_said():
    with pytest.raises(ValueError, match="ridge of at least 0"):
        ridge_map(streamed(rows(9, 3, 1), rows(9, 2, 2)), -1.0)
    with pytest.raises(ValueError, match="singular"):
        ridge_map(streamed(rows(2, 5, 1), rows(2, 3, 2)), 0.0)
    with pytest.raises(ValueError, match=r"expected x \[n, 3\]"):
        Moments(3, 2).add(rows(9, 4, 1), rows(9, 2, 2))
    short = streamed(rows(2, 5, 1), rows(2, 3, 2))
    with pytest.raises(ValueError, match="none in the grid"):
        choose_ridge(short, short, [0.0])
    assert choose_ridge(short, short, [0.0, 0.1]).ridge == 0.1
    assert not ridge_map(streamed(torch.zeros(9, 3).double(), rows(9, 2, 2)), 0.1).any()
