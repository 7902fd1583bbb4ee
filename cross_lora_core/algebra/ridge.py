"""Least squares on pairs of responses, from second moments that are summed batch by batch.

The map `G = argmin sum ||y - G x||^2 + ridge mean_diag ||G||^2` needs `sum x x^T` and
`sum y x^T` only, so that no response is kept. Products of one batch are formed in the
precision of the responses and added up in float64. Float32 responses are precise enough for a
ridge of 1e-2, massive coordinates among them (tests/algebra/test_ridge.py); between bases that
an exact map joins, where 1e-8 is best, their rounding costs a tenth of an adapter's effect, and
float64 ones have to be given. Solves are in float64.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Moments", "RidgeChoice", "choose_ridge", "held_out_error", "ridge_map"]


class Moments:
    """Second moments of pairs (x, y), summed over rows; `add` is the only thing that changes them.

    Attributes:
        xx: `sum w x x^T`, float64 [d_x, d_x].
        yx: `sum w y x^T`, float64 [d_y, d_x].
        yy: `sum w ||y||^2`.
        count: rows added.
    """

    def __init__(self, d_x: int, d_y: int, device: torch.device | str = "cpu") -> None:
        self.xx = torch.zeros(d_x, d_x, dtype=torch.float64, device=device)
        self.yx = torch.zeros(d_y, d_x, dtype=torch.float64, device=device)
        self.yy = 0.0
        self.count = 0

    @property
    def mean_diagonal(self) -> float:
        """Mean of the diagonal of `xx`: the unit in which a ridge is given."""
        return float(self.xx.diagonal().mean())

    def root(self, ridge: float) -> Tensor | None:
        """Cholesky factor of `xx + ridge mean_diag I`; None where the ridge does not make that regular."""
        regular = self.xx.clone()
        regular.diagonal().add_(ridge * self.mean_diagonal)
        factor, failed = torch.linalg.cholesky_ex(regular)
        return None if int(failed) else factor

    def add(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> None:
        """Add rows of responses.

        Args:
            x: [n, d_x], float32 or float64.
            y: [n, d_y].
            weights: [n], how much each row counts; all the same where None.

        Raises:
            ValueError: rows or widths that do not fit.
        """
        widths = (self.xx.shape[0], self.yx.shape[0])
        if len(x) != len(y) or (x.shape[1], y.shape[1]) != widths:
            raise ValueError(
                f"expected x [n, {widths[0]}] and y [n, {widths[1]}], got {list(x.shape)} and {list(y.shape)}"
            )
        weighted_x = x if weights is None else weights[:, None] * x
        weighted_y = y if weights is None else weights[:, None] * y
        self.xx += x.T @ weighted_x
        self.yx += weighted_y.T @ x
        self.yy += float((weighted_y.double() * y).sum())
        self.count += len(x)


@dataclass(frozen=True, eq=False)
class RidgeChoice:
    """The map a grid's best ridge gives.

    Attributes:
        map: G, float64 [d_y, d_x].
        ridge: the chosen one, in units of the mean diagonal.
        error: its relative squared error on the held-out moments.
    """

    map: Tensor
    ridge: float
    error: float


def ridge_map(moments: Moments, ridge: float) -> Tensor:
    """`G = yx (xx + ridge mean_diag I)^-1`, float64 [d_y, d_x]; zero where x never responds.

    Args:
        moments: of the pairs to fit.
        ridge: in units of the mean diagonal of `xx`.

    Raises:
        ValueError: a negative ridge, or one too small for moments that are singular or not finite.
    """
    if ridge < 0:
        raise ValueError(f"expected a ridge of at least 0, got {ridge}")
    found = _solved(moments, ridge)
    if found is None:
        raise ValueError(f"expected moments that a ridge of {ridge} makes regular, got singular ones")
    return found


def _solved(moments: Moments, ridge: float) -> Tensor | None:
    """The map, or None where the ridge does not make the moments regular."""
    if moments.mean_diagonal == 0.0:
        return torch.zeros_like(moments.yx)
    root = moments.root(ridge)
    if root is None:
        return None
    solved: Tensor = torch.cholesky_solve(moments.yx.T, root)
    return solved.T.contiguous()


def held_out_error(G: Tensor, moments: Moments) -> float:
    """`sum ||y - G x||^2 / sum ||y||^2` on other pairs than G was fitted on; 1 for G = 0, 0 where y is 0."""
    if moments.yy == 0.0:
        return 0.0
    G = G.to(moments.xx)
    crossed = float((G * moments.yx).sum())
    squared = float(((G @ moments.xx) * G).sum())
    return max(0.0, (moments.yy - 2.0 * crossed + squared) / moments.yy)


def choose_ridge(
    fitted: Moments, held_out: Moments, grid: Iterable[float], slack: float = 0.0
) -> RidgeChoice:
    """The largest ridge of a grid whose map predicts held-out pairs about as well as the best does.

    Without slack it is the best; of equal ones the first. Ridges too small for the moments are passed over.

    Args:
        fitted: moments of the pairs to fit.
        held_out: moments of other pairs.
        grid: ridges in units of the mean diagonal.
        slack: how much larger than the least held-out error the error may be, as a share of it. A map
            that carries *changes* of responses wants more of a ridge than one that predicts responses.

    Raises:
        ValueError: none of the grid makes the moments regular.
    """
    maps = ((_solved(fitted, ridge), ridge) for ridge in grid)
    choices = [RidgeChoice(G, ridge, held_out_error(G, held_out)) for G, ridge in maps if G is not None]
    if not choices:
        raise ValueError("expected a ridge that makes the moments regular, got none in the grid")
    least = min(choice.error for choice in choices)
    near = [choice for choice in choices if choice.error <= least * (1.0 + slack)]
    return max(near, key=lambda choice: choice.ridge) if slack else near[0]
