"""Control-C while a flow runs: noticed even where something between us and the signal swallows it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["heed_interrupts", "noticing_interrupts"]

_noticed = threading.Event()
"""Control-C came within the block."""


@contextmanager
def noticing_interrupts() -> Iterator[None]:
    """Within the block Control-C raises `KeyboardInterrupt`, and again at its end if that got lost.

    `heed_interrupts` raises it before the end, where there is much to come.

    Prefect drops one that comes while it closes a flow run that has reached its final state; Python drops one
    that is raised in a finaliser. Where interrupts are ignored, as in a script's background, they stay so.

    Raises:
        KeyboardInterrupt: there was one, and the block went on to its end.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    _noticed.clear()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        _noticed.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
        heed_interrupts()
    finally:
        signal.signal(signal.SIGINT, before)
        _noticed.clear()


def heed_interrupts() -> None:
    """Raise an interrupt that came within the block and got lost.

    Raises:
        KeyboardInterrupt: there was one.
    """
    if _noticed.is_set():
        raise KeyboardInterrupt
