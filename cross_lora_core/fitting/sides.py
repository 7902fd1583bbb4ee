"""A base as files and as a model in memory: what every method that runs both bases is given two of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cross_lora_core.evaluation import LoadedBase
from cross_lora_core.models import BaseModel
from cross_lora_core.responses import TokenBatch, layer_paths, respond

__all__ = ["EffectSide"]


@dataclass(frozen=True, eq=False)
class EffectSide:
    """A base as files and as a model in memory."""

    base: BaseModel
    loaded: LoadedBase

    def boundaries(self, batch: TokenBatch, wanted: Sequence[int]) -> dict[int, Tensor]:
        """The residual stream at some layer boundaries, by number, at the batch's kept positions.

        Args:
            batch: what the model, as it is, reads.
            wanted: numbers as `responses.Responses` counts them.
        """
        return respond(self.loaded, batch, layers=layer_paths(self.base), boundaries=wanted).boundaries
