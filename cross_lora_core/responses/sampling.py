"""Strings that a model writes by itself, from the beginning of a text on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from cross_lora_core.errors import BaseModelError
from cross_lora_core.evaluation import LoadedBase

__all__ = ["sample_strings"]

SHORTEST = 16
"""Characters; a shorter string is over before anything can be learned from it."""

PLAUSIBLE = 0.02
"""Share of the likeliest token's probability; a ratio of two tiny probabilities says nothing."""

ROUNDS = 20
"""Batches without a single string that is long enough before it is given up."""


def sample_strings(
    loaded: LoadedBase,
    count: int,
    *,
    tokens: int = 140,
    temperature: float = 1.0,
    seed: int = 0,
    batch: int = 128,
    contrasts: Sequence[float] = (0.0,),
) -> tuple[str, ...]:
    """Sample texts from the model as it is, with whatever adapter is on.

    Each starts from the token that begins a text (the one that ends it, where there is none that
    begins it) and is cut at the next special token. Strings too short to respond to are drawn again.

    With contrast 0 nothing is cut from the model's distribution p. An adapter's own domain is rare in it;
    with contrast c > 0 a token is drawn from `p (p / p_base)^c` among those with p of at least `PLAUSIBLE` of
    the likeliest one's, where `p_base` is the model without its adapter (contrastive decoding).

    Args:
        loaded: the model.
        count: strings wanted.
        tokens: the most a string has.
        temperature: of the distribution; 1 is the model's own.
        seed: the same seed gives the same strings on the same machine.
        batch: strings drawn side by side; part of what a seed means.
        contrasts: taken in turn by the strings of a batch; any above 0 needs an adapter that is on.

    Raises:
        BaseModelError: the tokenizer has neither token, or the model ends every text at once.
    """
    uniform = torch.Generator().manual_seed(seed)
    strings: list[str] = []
    empty_rounds = 0
    while len(strings) < count:
        ids = _sample(loaded, min(tokens, loaded.limit - 1), temperature, uniform, _in_turn(contrasts, batch))
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


def _in_turn(contrasts: Sequence[float], rows: int) -> Tensor:
    """The contrast of each row, [rows, 1]."""
    return torch.tensor([contrasts[row % len(contrasts)] for row in range(rows)])[:, None]


@torch.inference_mode()
def _sample(
    loaded: LoadedBase, tokens: int, temperature: float, uniform: torch.Generator, contrasts: Tensor
) -> list[list[int]]:
    """Token ids of one sample per contrast, without its first token, up to `tokens` of them or its end."""
    special = torch.tensor(sorted(loaded.tokenizer.all_special_ids), device=loaded.device)
    contrasts = contrasts.to(loaded.device)
    step = torch.full((len(contrasts), 1), _first_token(loaded), device=loaded.device)
    ended = torch.zeros(len(contrasts), dtype=torch.bool, device=loaded.device)
    sharpened = contrasts[:, 0].nonzero()[:, 0]
    score, score_base = _scorer(loaded), _scorer(loaded)
    drawn: list[Tensor] = []
    while len(drawn) < tokens and not bool(ended.all()):
        scores = score(step)
        if len(sharpened):
            with loaded.model.disable_adapter():
                base_scores = score_base(step[sharpened])
            scores[sharpened] = _contrasted(scores[sharpened], base_scores, contrasts[sharpened])
        step = _draw(scores, temperature, uniform)
        ended |= torch.isin(step[:, 0], special)
        drawn.append(step)
    ends = set(special.tolist())
    return [list(takewhile(lambda one: one not in ends, row)) for row in torch.cat(drawn, dim=1).tolist()]


def _scorer(loaded: LoadedBase) -> Callable[[Tensor], Tensor]:
    """A function from the next token of each row to the scores of the one after it, [rows, vocabulary]."""
    cache: Any = None

    def score(step: Tensor) -> Tensor:
        nonlocal cache
        output = loaded.model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        scores: Tensor = output.logits[:, -1, : len(loaded.tokenizer)].clone()
        return scores

    return score


def _contrasted(scores: Tensor, base_scores: Tensor, contrasts: Tensor) -> Tensor:
    """Scores of `p (p / p_base)^c` over plausible tokens."""
    ours, theirs = scores.float().log_softmax(-1), base_scores.float().log_softmax(-1)
    implausible = ours < ours.amax(-1, keepdim=True) + math.log(PLAUSIBLE)
    return (ours + contrasts * (ours - theirs)).masked_fill(implausible, -torch.inf).to(scores.dtype)


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
