"""Cross entropy of rows of tokens, each token with a weight of its own, in parts that fit the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cross_lora_core.evaluation import LoadedBase

__all__ = ["WeightedRow", "batch_rows", "parts_that_fit", "scores_of", "targets_of", "weighted_losses"]

LOGIT_BYTES = 256 << 20
"""Bound of the scores propagated back at once; with their gradients they take some four times as much."""


@dataclass(frozen=True)
class WeightedRow:
    """Token ids, and how much each counts when it is predicted from those before it.

    Attributes:
        ids: at least two.
        weights: as many; that of the first token is not used.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def first(self) -> int:
        """The first position whose prediction counts: what stands before is only read."""
        return next((at for at, weight in enumerate(self.weights) if at and weight), len(self.ids) - 1) - 1


def batch_rows(count: int, batch: int, seed: int, step: int) -> list[int]:
    """Indices of the rows of a step: all `count` in random order, then all in another, and so on."""
    chosen = []
    for at in range(step * batch, (step + 1) * batch):
        order = torch.Generator().manual_seed((seed << 32) + at // count)
        chosen.append(int(torch.randperm(count, generator=order)[at % count]))
    return chosen


def weighted_losses(loaded: LoadedBase, rows: Sequence[WeightedRow]) -> Iterator[Tensor]:
    """Parts of the rows' weighted mean cross entropy, in nats per token; their sum is the loss.

    Args:
        loaded: the model as it is, with whatever is on.
        rows: at least one weight of them is not zero.
    """
    total = sum(sum(row.weights[1:]) for row in rows)
    for part in parts_that_fit(rows, len(loaded.tokenizer)):
        scores, first = scores_of(loaded, part)
        ids, weights = targets_of(part, first, loaded.device)
        # flat: over a dimension in the middle, a softmax is copied and costs half as much again
        losses = torch.nn.functional.cross_entropy(scores.flatten(0, 1), ids.flatten(), reduction="none")
        yield (losses * weights.flatten()).sum() / total


def scores_of(loaded: LoadedBase, rows: Sequence[WeightedRow]) -> tuple[Tensor, int]:
    """Scores of the next token from the first position that counts on, and that position.

    Returns:
        float32 [rows, width - first - 1, vocabulary], padded on the right; first.
    """
    width, first = max(len(row.ids) for row in rows), min(row.first for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
    kept = torch.arange(first, width - 1, device=loaded.device)
    output = loaded.model(input_ids=ids.to(loaded.device), logits_to_keep=kept, use_cache=False)
    return output.logits.float(), first


def targets_of(rows: Sequence[WeightedRow], first: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and weights of what the scores from position `first` on predict, each [rows, width - first - 1]."""
    width = max(len(row.ids) for row in rows) - 1 - first
    ids, weights = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
    for number, row in enumerate(rows):
        ends = len(row.ids) - 1 - first
        ids[number, :ends] = torch.tensor(row.ids[first + 1 :])
        weights[number, :ends] = torch.tensor(row.weights[first + 1 :])
    return ids.to(device), weights.to(device)


def parts_that_fit(rows: Sequence[WeightedRow], vocabulary: int) -> Iterator[list[WeightedRow]]:
    """Rows of similar length together, as many as the bound allows, at least one."""
    part: list[WeightedRow] = []
    for row in sorted(rows, key=lambda one: len(one.ids)):
        wider = [*part, row]
        scored = len(row.ids) - min(one.first for one in wider)
        if part and scored * len(wider) * vocabulary * 4 > LOGIT_BYTES:
            yield part
            wider = [row]
        part = wider
    if part:
        yield part
