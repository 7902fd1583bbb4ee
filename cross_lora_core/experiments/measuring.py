"""What a step costs in this process, and the machine it ran on."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from cross_lora_core.evaluation import environment
from cross_lora_core.experiments.results import Cost

__all__ = ["Meter", "machine"]

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class Meter:
    """Wall time and peak memory since it was made; one at a time in a process measures memory right."""

    def __init__(self) -> None:
        with suppress(OSError):
            _RESET.write_text("5")  # Linux: the peak begins anew
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._started = time.monotonic()

    def read(self) -> Cost:
        """What it took so far."""
        return Cost(
            seconds=time.monotonic() - self._started,
            peak_bytes=_peak_bytes(),
            device_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        )


def _peak_bytes() -> int:
    """Peak resident memory: since the reset on Linux, elsewhere since the process began."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(device: torch.device) -> str:
    """Device, versions and processor: what a time or a last digit may depend on."""
    cores = f"{os.cpu_count()} cores"
    return f"{environment(device)}, python {platform.python_version()}, {platform.machine()}, {cores}"
