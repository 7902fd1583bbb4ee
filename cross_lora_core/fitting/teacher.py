"""What a source base with its adapter on teaches: which tokens of a string count, and how much.

Strings that the adapted source writes are general text as well as the adapter's own; learned as they are,
they would teach a target how the *source* writes. So each token is weighted by how much the adapter changes
what the source predicts there: what it leaves alone is not learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cross_lora_core.evaluation import LoadedBase
from cross_lora_core.responses import spread, token_spans
from cross_lora_core.training import WeightedRow, parts_that_fit, scores_of, targets_of

__all__ = ["divergences", "lesson", "read_alike"]

LARGEST_WEIGHT = 2.0
"""Nats; a token the adapter changes by more than this counts no more."""


def read_alike(one: LoadedBase, other: LoadedBase, strings: Sequence[str]) -> bool:
    """Whether two bases have the same tokens with the same ids, and read these strings as the same ones."""
    return bool(one.tokenizer.get_vocab() == other.tokenizer.get_vocab()) and all(
        token_spans(one, text)[0] == token_spans(other, text)[0] for text in strings
    )


def lesson(
    teacher: LoadedBase, student: LoadedBase, strings: Sequence[str], weighting: str
) -> list[WeightedRow]:
    """The strings as the student reads them, each token with its weight; strings without any are left out.

    Args:
        teacher: the source base, the adapter on.
        student: the target base.
        strings: what the teacher wrote.
        weighting: one of `RefineSpec`'s.
    """
    ours, theirs = ([token_spans(one, text) for text in strings] for one in (teacher, student))
    if weighting == "none":
        return [_even(ids) for ids, _ in theirs if len(ids) > 1]
    changes = _changes(teacher, [ids for ids, _ in ours], weighting)
    rows = []
    for change, (our_ids, our_spans), (ids, spans) in zip(changes, ours, theirs, strict=True):
        weights = change if our_ids == ids else spread(change, our_spans, spans)
        if any(weights[1:]):
            rows.append(WeightedRow(tuple(ids), tuple(weights)))
    return rows


def _even(ids: Sequence[int]) -> WeightedRow:
    return WeightedRow(tuple(ids), (1.0,) * len(ids))


@torch.no_grad()
def _changes(teacher: LoadedBase, texts: Sequence[list[int]], weighting: str) -> list[list[float]]:
    """What the adapter changes at each token, in nats; the first token is predicted by nothing."""
    rows = [_even(ids) for ids in texts if len(ids) > 1]
    found: dict[WeightedRow, list[float]] = {}
    for part in parts_that_fit(rows, len(teacher.tokenizer)):
        adapted = scores_of(teacher, part)[0].log_softmax(-1)
        with teacher.model.disable_adapter():
            change = adapted - scores_of(teacher, part)[0].log_softmax(-1)
        if weighting == "gain":
            ids, _ = targets_of(part, 0, teacher.device)
            nats = change.gather(-1, ids[..., None])[..., 0]
        else:
            nats = (adapted.exp() * change).sum(-1)
        clipped = nats.clamp(0.0, LARGEST_WEIGHT).tolist()
        found |= {row: [0.0, *own[: len(row.ids) - 1]] for row, own in zip(part, clipped, strict=True)}
    return [found.get(_even(ids), [0.0] * len(ids)) for ids in texts]


def divergences(teacher: LoadedBase, student: LoadedBase, rows: Sequence[WeightedRow]) -> Iterator[Tensor]:
    """Parts of the rows' weighted mean divergence of the student from the teacher, in nats per token.

    Args:
        teacher: the source base, the adapter on; it reads the rows as the student does.
        student: the target base, with what is trained on.
        rows: at least one weight of them is not zero.
    """
    total = sum(sum(row.weights[1:]) for row in rows)
    for part in parts_that_fit(rows, len(student.tokenizer)):
        theirs, first = scores_of(student, part)
        with torch.no_grad():
            ours, _ = scores_of(teacher, part)
        vocabulary = min(ours.shape[-1], theirs.shape[-1])  # an embedding may be padded
        wanted, got = (one[..., :vocabulary].log_softmax(-1) for one in (ours, theirs))
        _, weights = targets_of(part, first, student.device)
        yield ((wanted.exp() * (wanted - got)).sum(-1) * weights).sum() / total
