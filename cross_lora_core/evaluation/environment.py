"""What a measured loss depends on besides model, adapter and rows: the device and the libraries."""

from __future__ import annotations

from importlib.metadata import version

import torch

__all__ = ["environment"]

_LIBRARIES = ("torch", "transformers", "peft")


def environment(device: torch.device) -> str:
    """Kind of device and versions of the libraries: `cpu, torch 2.13.0, transformers 5.1.0, peft 0.18.0`.

    Losses of different environments differ in their last digits at least: a control that has to equal
    the base bit for bit may be compared with none of another.
    """
    return ", ".join([device.type, *(f"{name} {version(name)}" for name in _LIBRARIES)])
