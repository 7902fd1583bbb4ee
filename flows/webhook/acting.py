"""Act upon deliveries after they were answered, one after the other, in a thread."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore

from cross_lora_core.catalog import DeliveryRecord
from cross_lora_core.registry import RegistryConfig
from flows.deliveries import act_upon

__all__ = ["Actor"]

_WAITING = 1000
_log = logging.getLogger("cross_lora.webhook")


class Actor:
    """A bounded queue with one worker. What does not fit, or is left at the end, the next sweep finds."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="deliveries")
        self._room = BoundedSemaphore(_WAITING)

    def submit(self, delivery: DeliveryRecord) -> None:
        """Act upon a delivery soon."""
        if not self._room.acquire(blocking=False):
            _log.warning("%s waits for the next sweep: %d others wait", delivery.summary, _WAITING)
            return
        self._worker.submit(self._act, delivery)

    def _act(self, delivery: DeliveryRecord) -> None:
        self._room.release()
        act_upon(delivery, self._config)

    def close(self) -> None:
        """Finish the delivery at hand; leave the others to the sweep."""
        self._worker.shutdown(wait=True, cancel_futures=True)
