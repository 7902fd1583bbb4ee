"""Do the outputs change at all? The test that needs no evaluation file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cross_lora_core.evaluation.loading import Landing, LoadedBase

__all__ = ["PROBES", "FunctionCheck", "check_function"]

PROBES = (
    "The quick brown fox jumps over the lazy dog and",
    "def add(a, b):\n    return",
    "Question: What is the capital of France?\nAnswer:",
    '{"name": "Ada", "year": 1843, "tags": [',
    "Il treno parte alle 9 e arriva",
)
"""Varied short texts; an adapter that changes none of their next-token scores changes nothing."""


@dataclass(frozen=True)
class FunctionCheck:
    """Difference of next-token scores with and without the adapter, over `PROBES`.

    Attributes:
        landing: what PEFT did with the file.
        largest_change: of any logit.
        mean_divergence: mean KL divergence from the base's distribution, in nats per position.
    """

    landing: Landing
    largest_change: float
    mean_divergence: float

    @property
    def changed(self) -> bool:
        """Whether any score moved."""
        return self.largest_change > 0.0


def check_function(loaded: LoadedBase, adapter: Path) -> FunctionCheck:
    """Compare the base with and without an adapter on built-in texts."""
    before = [_scores(loaded, text) for text in PROBES]
    with loaded.with_adapter(adapter) as landing:
        after = [_scores(loaded, text) for text in PROBES]
    changes = [float((new - old).abs().max()) for old, new in zip(before, after, strict=True)]
    divergences = torch.cat([_divergence(old, new) for old, new in zip(before, after, strict=True)])
    return FunctionCheck(landing, float(torch.tensor(changes).max()), float(divergences.mean()))


@torch.inference_mode()
def _scores(loaded: LoadedBase, text: str) -> Tensor:
    """Logits of the last four positions, [4, vocabulary]."""
    ids = torch.tensor([loaded.encode(text, special=True)[-loaded.limit :]], device=loaded.device)
    logits: Tensor = loaded.model(input_ids=ids, logits_to_keep=min(4, ids.shape[1])).logits[0]
    return logits.float().cpu()


def _divergence(old: Tensor, new: Tensor) -> Tensor:
    before, after = old.log_softmax(-1), new.log_softmax(-1)
    return (before.exp() * (before - after)).sum(-1)
