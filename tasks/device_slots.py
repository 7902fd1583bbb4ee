"""Which device a task computes on, and how many tasks of a process may use one at a time.

A device task carries the tag `device`: task runners on a cluster reserve a
device for it, the deployed concurrency limit counts it, and inside the process
it takes a slot here before it puts tensors anywhere.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache

import torch
from threadpoolctl import ThreadpoolController

from cross_lora_core.settings import Settings, load_settings

__all__ = ["DEVICE_TAG", "count_gpus", "count_slots", "device_slot", "small_products", "torch_device"]

DEVICE_TAG = "device"

_slot: ContextVar[int] = ContextVar("slot", default=0)


class _Slots:
    """Numbers from 0 on, each held by one task at a time; the lowest free one is given out."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._changed = threading.Condition()

    @contextmanager
    def held(self) -> Iterator[int]:
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            number = self._free.pop(0)
        try:
            yield number
        finally:
            with self._changed:
                self._free = sorted([*self._free, number])
                self._changed.notify()


@lru_cache(maxsize=4)
def _slots(count: int) -> _Slots:
    return _Slots(count)


def count_gpus(settings: Settings) -> int:
    """GPUs of this machine that the settings let tasks use; 0 where they compute on the CPU."""
    return 0 if settings.device == "cpu" else torch.cuda.device_count()


def count_slots(settings: Settings) -> int:
    """Device tasks this process may run at once: as set, else one per GPU, else one per worker thread."""
    if settings.device_slots is not None:
        return settings.device_slots
    return count_gpus(settings) or settings.workers


@contextmanager
def device_slot() -> Iterator[torch.device]:
    """Wait for a slot, and hold it while the block computes on its device; slots share GPUs evenly."""
    with _slots(count_slots(load_settings())).held() as number:
        token = _slot.set(number)
        try:
            yield torch_device()
        finally:
            _slot.reset(token)


@contextmanager
def small_products() -> Iterator[None]:
    """On the CPU, where other tasks have the other cores, this thread takes one of them while the block runs.

    A skinny product that every task shares out to all cores spends most of its time waiting for them.
    `torch.set_num_threads` is not for this: it also sets what threads that torch has not met yet begin with,
    so that a measurement beside the block would be taken on one core or on all, as it happens. What a new
    thread begins with torch sets when it is first asked; only then is there something to go back to.
    """
    settings = load_settings()
    torch.get_num_threads()
    shared = not count_gpus(settings) and count_slots(settings) > 1
    with _openmp().limit(limits=1, user_api="openmp") if shared else nullcontext():
        yield


@lru_cache(maxsize=1)
def _openmp() -> ThreadpoolController:
    return ThreadpoolController()


def torch_device() -> torch.device:
    """The device of the slot this task holds; without a slot, the first one."""
    settings = load_settings()
    gpus = count_gpus(settings)
    if gpus:
        return torch.device("cuda", _slot.get() % gpus)
    return torch.device("cuda" if settings.device == "cuda" else "cpu")
