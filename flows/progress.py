"""Who is told how far a flow run is: the terminal that started it, or nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["ProgressListener", "current_listener", "listening"]


class ProgressListener(Protocol):
    """Hears of every stage of a flow run that happens in this process; called from task threads."""

    def expect(self, stage: str, count: int) -> None:
        """`count` more task runs of a stage were submitted."""

    def advance(self, stage: str) -> None:
        """One task run of a stage ended."""


class _Nobody:
    def expect(self, stage: str, count: int) -> None:
        """Nobody listens."""

    def advance(self, stage: str) -> None:
        """Nobody listens."""


_listeners: list[ProgressListener] = [_Nobody()]


def current_listener() -> ProgressListener:
    """The innermost listener."""
    return _listeners[-1]


@contextmanager
def listening(listener: ProgressListener) -> Iterator[None]:
    """Tell `listener` about flow runs started inside the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()
