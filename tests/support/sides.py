"""A base folder as methods that run both bases take it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from cross_lora_core.evaluation import LoadedBase
from cross_lora_core.fitting import EffectSide
from cross_lora_core.models import open_base


def side(folder: Path) -> EffectSide:
    return EffectSide(open_base(folder), LoadedBase(folder, torch.float32, torch.device("cpu")))


def stream_at(one: EffectSide, batches, number: int) -> Tensor:
    """The residual stream of all batches at one boundary."""
    return torch.cat([one.boundaries(each, [number])[number] for each in batches])
