"""Made-up measurements, for what is decided from measurements alone."""

from __future__ import annotations

import torch

from cross_lora_core.evaluation import FunctionCheck, Landing, Losses

WORKS = FunctionCheck(Landing(4, 4, 0), 0.5, 0.01)
ROWS = 40


def losses(
    improvement: float,
    *,
    random: float = 0.0,
    noise: float = 0.02,
    seed: int = 0,
    rows: int = ROWS,
    gain: float = 0.5,
) -> Losses:
    """The migrated adapter lowers the loss by `improvement`, the random control by `random`, the source's by `gain`."""
    drawn = torch.Generator().manual_seed(seed)

    def jitter() -> torch.Tensor:
        return noise * torch.randn(rows, generator=drawn)

    target = 1.0 + 0.2 * torch.rand(rows, generator=drawn)
    return Losses(
        target=target.tolist(),
        zero=target.tolist(),
        random=(target - random + jitter()).tolist(),
        migrated=(target - improvement + jitter()).tolist(),
        source=(target + 0.1).tolist(),
        source_adapter=(target + 0.1 - gain + jitter()).tolist(),
    )
