"""A base as files and as a model in memory: what every method that runs both bases is given two of."""

from __future__ import annotations

from dataclasses import dataclass

from cross_lora_core.evaluation import LoadedBase
from cross_lora_core.models import BaseModel

__all__ = ["EffectSide"]


@dataclass(frozen=True, eq=False)
class EffectSide:
    """A base as files and as a model in memory."""

    base: BaseModel
    loaded: LoadedBase
