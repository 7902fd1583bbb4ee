"""Losses per row, in nats per character of the completion: comparable between tokenizers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation.loading import LoadedBase
from cross_lora_core.evaluation.rows import EvaluationRow

__all__ = ["row_losses", "row_tokens"]

BATCH_ROWS = 8
"""On two cores 1.6 to 1.9 times as fast as one row at a time; 16 were no faster."""

LOGIT_BYTES = 512 << 20
"""Bound of one batch's scores: a large vocabulary, not the model, would fill the memory."""


@dataclass(frozen=True)
class _Encoded:
    """Token ids of a row, and where it stands in the file."""

    index: int
    prompt: list[int]
    completion: list[int]

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.completion)


def row_losses(loaded: LoadedBase, rows: Sequence[EvaluationRow]) -> list[float]:
    """Negative log likelihood of each completion given its prompt, divided by its characters.

    Prompt and completion are tokenised apart, so that the boundary is the same
    for every adapter; the prompt gets the special tokens the tokenizer adds. Rows
    of similar length go together, padded on the right, where a causal model does
    not look; the vocabulary is projected at scored positions only.

    Raises:
        ConfigurationError: a completion is longer than the model can read.
    """
    losses = [0.0] * len(rows)
    encoded = sorted(
        (_encode(loaded, row, index) for index, row in enumerate(rows)), key=lambda one: one.length
    )
    for batch in _batches(encoded, len(loaded.tokenizer)):
        for one, loss in zip(batch, _batch_losses(loaded, batch), strict=True):
            losses[one.index] = loss / len(rows[one.index].completion)
    return losses


def _batches(encoded: Sequence[_Encoded], vocabulary: int) -> Iterator[list[_Encoded]]:
    """Consecutive rows, as many as the two bounds allow."""
    batch: list[_Encoded] = []
    for one in encoded:
        wider = [*batch, one]
        scored = max(x.length for x in wider) - min(len(x.prompt) for x in wider)
        if batch and (len(wider) > BATCH_ROWS or scored * len(wider) * vocabulary * 4 > LOGIT_BYTES):
            yield batch
            wider = [one]
        batch = wider
    if batch:
        yield batch


@torch.inference_mode()
def _batch_losses(loaded: LoadedBase, batch: Sequence[_Encoded]) -> list[float]:
    """Summed negative log likelihood of each completion, in nats."""
    width = max(one.length for one in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    for number, one in enumerate(batch):
        ids[number, : one.length] = torch.tensor(one.prompt + one.completion)
    first = min(len(one.prompt) for one in batch) - 1
    scored = torch.arange(first, width - 1, device=loaded.device)
    logits = loaded.model(input_ids=ids.to(loaded.device), logits_to_keep=scored).logits
    losses = []
    for number, one in enumerate(batch):
        start = len(one.prompt) - 1 - first
        scores = logits[number, start : start + len(one.completion)].float()
        wanted = torch.tensor(one.completion, device=loaded.device)
        losses.append(float(torch.nn.functional.cross_entropy(scores, wanted, reduction="sum")))
    return losses


def _encode(loaded: LoadedBase, row: EvaluationRow, index: int) -> _Encoded:
    """Ids of prompt and completion, as many as the model can read."""
    prompt, completion = row_tokens(loaded, row)
    room = loaded.limit - len(completion)
    if room < 1 or not completion:
        raise ConfigurationError(
            f"a completion of 1 to {loaded.limit - 1} tokens",
            f"{len(completion)} tokens",
            f"the row that begins {row.completion[:40]!r}",
            "Shorten or remove this row of the evaluation file.",
        )
    return _Encoded(index, prompt[-room:], completion)


def row_tokens(loaded: LoadedBase, row: EvaluationRow) -> tuple[list[int], list[int]]:
    """Ids of prompt and completion, tokenised apart; at least one stands before the completion."""
    prompt = loaded.encode(row.prompt, special=True)
    if not prompt:
        prompt = [loaded.tokenizer.bos_token_id or loaded.tokenizer.eos_token_id or 0]
    return prompt, loaded.encode(row.completion, special=False)
