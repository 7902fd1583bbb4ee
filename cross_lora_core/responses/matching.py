"""Where two tokenisations of one text stand at the same place: positions whose responses can be paired."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["matched_positions", "spread"]

Offsets = Sequence[tuple[int, int]]


def matched_positions(
    text: str, source_offsets: Offsets, target_offsets: Offsets, skip: int = 3
) -> list[tuple[int, int]]:
    """Pairs of token indices at which both tokenisations have read the text up to the same character.

    Only where a token ends counts, so that a leading space inside or outside of its span changes
    nothing. Of tokens that share the bytes of one character the last has read all of it. Tokens without
    a span (special tokens, what a normaliser inserted) and those that do not go forward are dropped.

    Args:
        text: the text both tokenisers read.
        source_offsets: (first character, character after the last) of each source token.
        target_offsets: the same of each target token.
        skip: pairs dropped at the beginning, where a model has seen too little to respond to.

    Returns:
        (index of the source token, index of the target token), ascending in both.
    """
    ours, theirs = _ends(source_offsets, len(text)), _ends(target_offsets, len(text))
    pairs = sorted((ours[end], theirs[end]) for end in ours.keys() & theirs.keys())
    return _ascending(pairs)[skip:]


def _ends(offsets: Offsets, length: int) -> dict[int, int]:
    """Character after the last -> the last token that ends there."""
    return {stop: index for index, (start, stop) in enumerate(offsets) if start < stop <= length}


def _ascending(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    kept: list[tuple[int, int]] = []
    for pair in pairs:
        if not kept or (pair[0] > kept[-1][0] and pair[1] > kept[-1][1]):
            kept.append(pair)
    return kept


def spread(amounts: Sequence[float], source_offsets: Offsets, target_offsets: Offsets) -> list[float]:
    """Amounts per source token as amounts per target token, by the characters that both stand for.

    Each character of a source token gets an even share of its amount, and a target token what its
    characters got. Tokens without a span have nothing to give, and get nothing.

    Args:
        amounts: one per source token.
        source_offsets: (first character, character after the last) of each source token.
        target_offsets: the same of each target token.
    """
    shares = [0.0] * max((stop for _, stop in (*source_offsets, *target_offsets)), default=0)
    for amount, (start, stop) in zip(amounts, source_offsets, strict=True):
        for at in range(start, stop):
            shares[at] += amount / (stop - start)
    return [sum(shares[start:stop]) for start, stop in target_offsets]
