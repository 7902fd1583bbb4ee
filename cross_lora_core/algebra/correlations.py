"""Correlations of every coordinate of x with every one of y, summed batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Correlations"]


class Correlations:
    """Sums about an origin near the means, in float64; `add` is the only thing that changes them."""

    def __init__(self, x_origin: Tensor, y_origin: Tensor) -> None:
        """Nothing added yet.

        Args:
            x_origin: [d_x], say the mean of the first batch.
            y_origin: [d_y].
        """
        self._x_origin, self._y_origin = x_origin.double(), y_origin.double()
        self._x_sum, self._y_sum = torch.zeros_like(self._x_origin), torch.zeros_like(self._y_origin)
        self._x_squares, self._y_squares = self._x_sum.clone(), self._y_sum.clone()
        self._products = torch.outer(self._x_sum, self._y_sum)
        self._count = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows x [n, d_x] and y [n, d_y]."""
        x, y = x.double() - self._x_origin, y.double() - self._y_origin
        self._x_sum += x.sum(0)
        self._y_sum += y.sum(0)
        self._x_squares += x.square().sum(0)
        self._y_squares += y.square().sum(0)
        self._products += x.T @ y
        self._count += len(x)

    @property
    def spreads(self) -> tuple[Tensor, Tensor]:
        """Standard deviations [d_x] and [d_y]."""
        return self._spread(self._x_sum, self._x_squares), self._spread(self._y_sum, self._y_squares)

    def coefficients(self) -> Tensor:
        """Pearson's, float64 [d_x, d_y]; 0 where a coordinate never changes."""
        count = max(1, self._count)
        shared = self._products / count - torch.outer(self._x_sum, self._y_sum) / count**2
        x, y = self.spreads
        scale = torch.outer(x, y)
        found = torch.where(scale > 0, shared / scale, torch.zeros_like(shared))
        return found.clamp(-1.0, 1.0)

    def _spread(self, total: Tensor, squares: Tensor) -> Tensor:
        count = max(1, self._count)
        return (squares / count - (total / count).square()).clamp_min(0.0).sqrt()
