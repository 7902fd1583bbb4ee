"""Strings that a model writes by itself, from the beginning of a text on."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from cross_lora_core.errors import BaseModelError
from cross_lora_core.evaluation import LoadedBase

__all__ = ["sample_strings"]

SHORTEST = 16
"""Characters; a shorter string is over before anything can be learned from it."""

ROUNDS = 20
"""Batches without a single string that is long enough before it is given up."""


def sample_strings(
    loaded: LoadedBase,
    count: int,
    *,
    tokens: int = 140,
    temperature: float = 1.0,
    seed: int = 0,
    batch: int = 32,
) -> tuple[str, ...]:
    """Sample texts from the model as it is, with whatever adapter is on, nothing cut from its distribution.

    Each starts from the token that begins a text (the one that ends it, where there is none that
    begins it) and is cut at the next special token. Strings too short to respond to are drawn again.

    Args:
        loaded: the model.
        count: strings wanted.
        tokens: the most a string has.
        temperature: of the distribution; 1 is the model's own.
        seed: the same seed gives the same strings on the same machine.
        batch: strings drawn side by side; part of what a seed means.

    Raises:
        BaseModelError: the tokenizer has neither token, or the model ends every text at once.
    """
    uniform = torch.Generator().manual_seed(seed)
    strings: list[str] = []
    empty_rounds = 0
    while len(strings) < count:
        ids = _sample(loaded, batch, min(tokens, loaded.limit - 1), temperature, uniform)
        drawn = [text for text in (_text(loaded.tokenizer, row) for row in ids) if len(text) >= SHORTEST]
        empty_rounds = 0 if drawn else empty_rounds + 1
        if empty_rounds == ROUNDS:
            raise BaseModelError(
                f"texts of at least {SHORTEST} characters",
                f"none in {ROUNDS * batch} samples",
                loaded.tokenizer.name_or_path,
                "Use random tokens or the bundled text as probes of this base.",
            )
        strings += drawn
    return tuple(strings[:count])


@torch.inference_mode()
def _sample(
    loaded: LoadedBase, rows: int, tokens: int, temperature: float, uniform: torch.Generator
) -> list[list[int]]:
    """Token ids of `rows` samples without the first token, each up to `tokens` of them or its end."""
    special = torch.tensor(sorted(loaded.tokenizer.all_special_ids), device=loaded.device)
    step = torch.full((rows, 1), _first_token(loaded), device=loaded.device)
    ended = torch.zeros(rows, dtype=torch.bool, device=loaded.device)
    cache: Any = None
    drawn: list[Tensor] = []
    while len(drawn) < tokens and not bool(ended.all()):
        output = loaded.model(input_ids=step, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        scores = output.logits[:, -1, : len(loaded.tokenizer)]
        step = _draw(scores, temperature, uniform)
        ended |= torch.isin(step[:, 0], special)
        drawn.append(step)
    ends = set(special.tolist())
    return [list(takewhile(lambda one: one not in ends, row)) for row in torch.cat(drawn, dim=1).tolist()]


def _draw(scores: Tensor, temperature: float, uniform: torch.Generator) -> Tensor:
    """One token per row by its inverse distribution function, [rows, 1].

    Uniforms come from the CPU, so that a seed means the same on every device.
    """
    reached = (scores.double() / temperature).softmax(-1).cumsum(-1)
    at = torch.rand(len(scores), 1, generator=uniform, dtype=torch.float64).to(scores.device)
    return torch.searchsorted(reached, at * reached[:, -1:], right=True).clamp_max(scores.shape[1] - 1)


def _first_token(loaded: LoadedBase) -> int:
    tokenizer = loaded.tokenizer
    found = [one for one in (tokenizer.bos_token_id, tokenizer.eos_token_id) if one is not None]
    if not found:
        raise BaseModelError(
            "a tokenizer with a token that begins or ends a text",
            "neither",
            tokenizer.name_or_path,
            "Name bos_token or eos_token in tokenizer_config.json.",
        )
    return int(found[0])


def _text(tokenizer: Any, ids: list[int]) -> str:
    """The text of the ids; a character that was cut in the middle at the end is left out."""
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text.rstrip("�")
