"""Probe strings as token batches of two models, with the positions at which their responses are paired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cross_lora_core.evaluation import LoadedBase
from cross_lora_core.responses.matching import matched_positions

__all__ = ["PairedBatch", "TokenBatch", "pair_batches", "token_spans"]


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Some strings as one model reads them.

    Attributes:
        ids: int64 [strings, width], padded on the right, where a causal model does not look.
        kept: int64 [positions], indices into the flattened [strings * width].
    """

    ids: Tensor
    kept: Tensor


@dataclass(frozen=True, eq=False)
class PairedBatch:
    """The same strings for both models; their kept positions mean the same, one by one."""

    source: TokenBatch
    target: TokenBatch

    @property
    def positions(self) -> int:
        """Pairs of responses this batch gives."""
        return len(self.source.kept)


@dataclass(frozen=True)
class _Pair:
    source: list[int]
    target: list[int]
    positions: list[tuple[int, int]]

    @property
    def length(self) -> int:
        return max(len(self.source), len(self.target))


def pair_batches(
    source: LoadedBase, target: LoadedBase, strings: Sequence[str], *, batch: int = 8, skip: int = 3
) -> Iterator[PairedBatch]:
    """Batches of strings of similar length; strings without any matched position are left out.

    Args:
        source: the source model, for its tokenizer and the tokens it can read.
        target: the target model, likewise.
        strings: the probes.
        batch: strings that are run together.
        skip: matched positions dropped at the beginning of each string.
    """
    pairs = sorted((_pair(source, target, text, skip) for text in strings), key=lambda one: one.length)
    pairs = [one for one in pairs if one.positions]
    for start in range(0, len(pairs), batch):
        chosen = pairs[start : start + batch]
        yield PairedBatch(
            _batch([one.source for one in chosen], [[i for i, _ in one.positions] for one in chosen]),
            _batch([one.target for one in chosen], [[j for _, j in one.positions] for one in chosen]),
        )


def _pair(source: LoadedBase, target: LoadedBase, text: str, skip: int) -> _Pair:
    (ours, our_offsets), (theirs, their_offsets) = token_spans(source, text), token_spans(target, text)
    return _Pair(ours, theirs, matched_positions(text, our_offsets, their_offsets, skip))


def token_spans(loaded: LoadedBase, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a text, as many as the model can read, and the characters each stands for."""
    read: Any = loaded.tokenizer(text, return_offsets_mapping=True)
    return list(read.input_ids)[: loaded.limit], list(read.offset_mapping)[: loaded.limit]


def _batch(rows: Sequence[list[int]], kept: Sequence[list[int]]) -> TokenBatch:
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    flat = [number * width + index for number, indices in enumerate(kept) for index in indices]
    return TokenBatch(ids, torch.tensor(flat))
