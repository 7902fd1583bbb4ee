"""Which bytes of a tensor are asked for together, so that a few requests bring many slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Span", "spans_of"]


@dataclass(frozen=True)
class Span:
    """Bytes from `start` to `stop` (exclusive) of a tensor, and what of them is wanted.

    Attributes:
        parts: ascending (first byte, byte after the last, where the first one goes in the result).
    """

    start: int
    stop: int
    parts: tuple[tuple[int, int, int], ...]

    def parts_in(self, position: int, length: int) -> Iterator[tuple[int, int, int]]:
        """The parts, or what of them lies in the `length` bytes from `position` on."""
        for start, stop, target in self.parts:
            first, last = max(start, position), min(stop, position + length)
            if first < last:
                yield first, last, target + first - start


def spans_of(wanted: Sequence[tuple[int, int]], *, unit: int, gap: int, length: int) -> list[Span]:
    """Cover half-open byte ranges, each span widened to multiples of `unit` but not beyond `length`.

    Args:
        wanted: in the order of the result; neighbours that ascend may share a span.
        unit: bytes that are read together or not at all.
        gap: bytes that are rather read for nothing than asked for apart.
        length: of the tensor.
    """
    spans: list[Span] = []
    target = 0
    for start, stop in wanted:
        if start == stop:
            continue
        part = (start, stop, target)
        target += stop - start
        first, last = start // unit * unit, min(-(-stop // unit) * unit, length)
        before = spans[-1] if spans else None
        if before is not None and before.parts[-1][1] <= start and first <= before.stop + gap:
            spans[-1] = Span(before.start, last, (*before.parts, part))
        else:
            spans.append(Span(first, last, (part,)))
    return spans
