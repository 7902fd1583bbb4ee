"""Does a model write the completion by itself? Greedy generation from each prompt, compared as text.

A row ends at a special token, at the completion's number of lines, or at a bound of tokens that
leaves room to go on after the completion, so that a text which only begins with it is no match.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria

from cross_lora_core.evaluation.loading import LoadedBase
from cross_lora_core.evaluation.losses import row_tokens
from cross_lora_core.evaluation.rows import EvaluationRow

__all__ = ["exact_matches", "generated_texts"]

BATCH_ROWS = 8
"""Rows written side by side; padding changes their scores in the last digits only."""

ROOM = 8
"""Tokens beyond twice those of the completion: other tokens may spell the same text."""


@dataclass(frozen=True)
class _Prompt:
    """Token ids of a row's prompt, where it stands in the file, and when what follows is over."""

    index: int
    ids: list[int]
    tokens: int
    lines: int


def exact_matches(loaded: LoadedBase, rows: Sequence[EvaluationRow]) -> list[float]:
    """1 for each row whose generated text is its completion, white space around both left out; else 0.

    A completion that holds a special token counts up to it, as the generated text does.
    """
    special = re.compile("|".join(map(re.escape, _special_tokens(loaded.tokenizer).values())) or r"(?!)")
    return [
        float(text.strip() == special.split(row.completion)[0].strip())
        for text, row in zip(generated_texts(loaded, rows), rows, strict=True)
    ]


def generated_texts(loaded: LoadedBase, rows: Sequence[EvaluationRow]) -> list[str]:
    """What the model as it is, with whatever adapter is on, writes after each prompt; greedily.

    Prompts are read as `row_losses` reads them; rows of similar length go together, padded on the left.
    What the base's folder says about sampling and repetition is not followed.
    """
    texts = [""] * len(rows)
    prompts = sorted(
        (_prompt(loaded, row, index) for index, row in enumerate(rows)), key=lambda one: len(one.ids)
    )
    for start in range(0, len(prompts), BATCH_ROWS):
        batch = prompts[start : start + BATCH_ROWS]
        for one, text in zip(batch, _batch_texts(loaded, batch), strict=True):
            texts[one.index] = text
    return texts


def _prompt(loaded: LoadedBase, row: EvaluationRow, index: int) -> _Prompt:
    prompt, completion = row_tokens(loaded, row)
    tokens = min(2 * len(completion) + ROOM, loaded.limit - 1)
    return _Prompt(index, prompt[tokens - loaded.limit :], tokens, len(row.completion.strip().split("\n")))


@torch.inference_mode()
def _batch_texts(loaded: LoadedBase, batch: Sequence[_Prompt]) -> list[str]:
    width = max(len(one.ids) for one in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, one in enumerate(batch):
        ids[number, width - len(one.ids) :] = torch.tensor(one.ids)
        mask[number, width - len(one.ids) :] = 1
    ending = _Ending(loaded.tokenizer, batch, width)
    written = loaded.model.generate(
        input_ids=ids.to(loaded.device),
        attention_mask=mask.to(loaded.device),
        generation_config=GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False, max_new_tokens=max(one.tokens for one in batch), pad_token_id=0
        ),
        stopping_criteria=[ending],
    )
    return ending.texts(written)


class _Ending(StoppingCriteria):
    """When each row of a batch is over, and its text up to there."""

    def __init__(self, tokenizer: Any, batch: Sequence[_Prompt], width: int) -> None:
        self._tokenizer, self._batch, self._width = tokenizer, batch, width
        self._special = _special_tokens(tokenizer)

    def __call__(self, input_ids: Tensor, *_scores: Any, **_others: Any) -> Tensor:
        """Which rows are over, [rows]."""
        return torch.tensor([over for _, over in self._read(input_ids)], device=input_ids.device)

    def texts(self, input_ids: Tensor) -> list[str]:
        """The text of each row, up to its end."""
        return [text for text, _ in self._read(input_ids)]

    def _read(self, input_ids: Tensor) -> list[tuple[str, bool]]:
        written = input_ids[:, self._width :].tolist()
        return [self._read_row(one, ids[: one.tokens]) for one, ids in zip(self._batch, written, strict=True)]

    def _read_row(self, one: _Prompt, ids: list[int]) -> tuple[str, bool]:
        kept = list(takewhile(lambda token: token not in self._special, ids))
        text: str = self._tokenizer.decode(kept, clean_up_tokenization_spaces=False)
        lines = text.lstrip().split("\n")
        over = len(kept) < len(ids) or len(ids) == one.tokens or len(lines) > one.lines
        return "\n".join(lines[: one.lines]), over


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    """Tokens that are no text, among them every one that ends a text or a turn, by id."""
    added = {number: one.content for number, one in tokenizer.added_tokens_decoder.items() if one.special}
    return added | dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
