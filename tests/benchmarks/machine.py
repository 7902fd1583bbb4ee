"""What figures and times may depend on: stands in every file of results."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import torch

from cross_lora_core.evaluation import environment

__all__ = ["machine"]


def machine(*packages: str) -> dict[str, Any]:
    """This machine, and the versions of Python, torch and other packages."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    told = {
        "environment": environment(device),
        "python": platform.python_version(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
    }
    return told | {name: version(name) for name in packages}
