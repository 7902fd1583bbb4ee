"""Losses per row, in nats per character of the completion: comparable between tokenizers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation.loading import LoadedBase
from cross_lora_core.evaluation.rows import EvaluationRow

__all__ = ["row_losses"]


def row_losses(loaded: LoadedBase, rows: Sequence[EvaluationRow]) -> list[float]:
    """Negative log likelihood of each completion given its prompt, divided by its characters.

    Prompt and completion are tokenised apart, so that the boundary is the same
    for every adapter; the prompt gets the special tokens the tokenizer adds. Rows
    go one at a time and the vocabulary is projected at scored positions only: a
    large vocabulary, not the model, would fill the memory.

    Raises:
        ConfigurationError: a completion is longer than the model can read.
    """
    return [_row_loss(loaded, row) for row in rows]


@torch.inference_mode()
def _row_loss(loaded: LoadedBase, row: EvaluationRow) -> float:
    prompt, completion = _encode(loaded, row)
    ids = torch.tensor([prompt + completion], device=loaded.device)
    scored = torch.arange(len(prompt) - 1, ids.shape[1] - 1, device=loaded.device)
    logits = loaded.model(input_ids=ids, logits_to_keep=scored).logits[0].float()
    return float(torch.nn.functional.cross_entropy(logits, ids[0, scored + 1], reduction="sum")) / len(
        row.completion
    )


def _encode(loaded: LoadedBase, row: EvaluationRow) -> tuple[list[int], list[int]]:
    """Ids of prompt and completion; something must stand before the first scored token."""
    prompt = loaded.encode(row.prompt, special=True)
    completion = loaded.encode(row.completion, special=False)
    if not prompt:
        prompt = [loaded.tokenizer.bos_token_id or loaded.tokenizer.eos_token_id or 0]
    room = loaded.limit - len(completion)
    if room < 1 or not completion:
        raise ConfigurationError(
            f"a completion of 1 to {loaded.limit - 1} tokens",
            f"{len(completion)} tokens",
            f"the row that begins {row.completion[:40]!r}",
            "Shorten or remove this row of the evaluation file.",
        )
    return prompt[-room:], completion
