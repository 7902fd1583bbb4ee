"""Who is told how far a flow run is: the terminal that started it, or nobody.

Tasks may run anywhere; their futures are watched in the flow's process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from prefect.futures import PrefectFuture

__all__ = ["ProgressListener", "current_listener", "listening", "watched"]


class ProgressListener(Protocol):
    """Hears of every stage of a flow run of this process; called from threads of the task runner."""

    def expect(self, stage: str, count: int) -> None:
        """`count` more task runs of a stage will be submitted."""

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


def watched(stage: str, future: PrefectFuture[Any]) -> PrefectFuture[Any]:
    """Tell the current listener when a task run ends."""
    listener = current_listener()
    future.add_done_callback(lambda _: listener.advance(stage))
    return future
