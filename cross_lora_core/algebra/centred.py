"""Second moments of pairs about their weighted means, for least squares with an intercept, batch by batch.

Sums are kept about an origin near the means, so that a coordinate whose mean is large beside its spread loses
no precision; `about_means` then takes off what the means still differ from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cross_lora_core.algebra.ridge import Moments

__all__ = ["CentredMoments"]


@dataclass(eq=False)
class CentredMoments:
    """Moments of pairs (x, y), and their weighted sums, about an origin; `add` is what changes them.

    Attributes:
        x_origin: float32 [d_x], say the mean of the first batch.
        y_origin: float32 [d_y].
        moments: about the origin.
        x_sum: `sum w (x - x_origin)`, float64 [d_x].
        y_sum: `sum w (y - y_origin)`, float64 [d_y].
        weight: `sum w`.
    """

    x_origin: Tensor
    y_origin: Tensor
    moments: Moments = field(init=False)
    x_sum: Tensor = field(init=False)
    y_sum: Tensor = field(init=False)
    weight: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.moments = Moments(len(self.x_origin), len(self.y_origin), self.x_origin.device)
        self.x_sum, self.y_sum = (torch.zeros_like(one).double() for one in (self.x_origin, self.y_origin))

    def add(self, x: Tensor, y: Tensor, weights: Tensor) -> None:
        """Add rows x [n, d_x] and y [n, d_y], float32, which count by their weights [n]."""
        x, y = x - self.x_origin, y - self.y_origin
        self.moments.add(x, y, weights)
        self.x_sum += (weights[:, None] * x).double().sum(0)
        self.y_sum += (weights[:, None] * y).double().sum(0)
        self.weight += float(weights.double().sum())

    def about_means(self) -> Moments:
        """The moments of all rows about their weighted means."""
        found = Moments(len(self.x_sum), len(self.y_sum), self.x_sum.device)
        share = 1.0 / (self.weight or 1.0)
        found.xx = self.moments.xx - share * torch.outer(self.x_sum, self.x_sum)
        found.yx = self.moments.yx - share * torch.outer(self.y_sum, self.x_sum)
        found.yy = self.moments.yy - share * float(self.y_sum @ self.y_sum)
        found.count = self.moments.count
        return found
