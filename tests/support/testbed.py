"""Where real adapters and weights are, on machines that have them; nothing in the project needs them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "testbed"
TESTBED = Path(os.environ.get("CROSS_LORA_TESTBED", str(_DEFAULT)))
_BASES = os.environ.get("CROSS_LORA_BASES")

needs_testbed = pytest.mark.skipif(not TESTBED.is_dir(), reason=f"no testbed at {TESTBED}")


def real_base(name: str) -> Path:
    """A real base's folder; skips where there is none."""
    if not _BASES or not (Path(_BASES) / name / "config.json").is_file():
        pytest.skip(f"CROSS_LORA_BASES names no folder with {name} (examples/bring_bases.py makes one)")
    return Path(_BASES) / name
