"""What a measured loss depends on besides model, adapter and rows: the device and the libraries."""

from __future__ import annotations

from importlib.metadata import version

import torch

__all__ = ["environment"]

_LIBRARIES = ("torch", "transformers", "peft")


def environment(device: torch.device) -> str:
    """The device and the versions of the libraries, as in `cpu AVX512, 2 threads, torch 2.13.0, …`.

    Losses of different environments differ in their last digits at least: how many threads share a sum, and
    which instructions take it, decides how it is rounded. A control that has to equal the base bit for bit
    may be compared with none of another.
    """
    return ", ".join([*_device(device), *(f"{name} {version(name)}" for name in _LIBRARIES)])


def _device(device: torch.device) -> list[str]:
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return [f"cpu {torch.backends.cpu.get_cpu_capability()}", f"{threads} thread{'s' * (threads > 1)}"]
    return [f"{device.type} {torch.cuda.get_device_name(device)}"]
