"""Pico bases for this folder, each built once per session, and a way to get one to damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pico_models import build_pico

PicoFactory = Callable[..., Path]


@pytest.fixture(scope="session")
def pico(tmp_path_factory: pytest.TempPathFactory) -> PicoFactory:
    """`pico("llama", shards=3)` -> a folder that tests only read."""
    built: dict[str, Path] = {}

    def build(family: str, **options: Any) -> Path:
        key = f"{family} {sorted(options.items(), key=str)}"
        if key not in built:
            built[key] = build_pico(family, tmp_path_factory.mktemp(family), **options)
        return built[key]

    return build


@pytest.fixture(scope="module", autouse=True)
def _pico_models_need_no_threads(one_thread: None) -> None:
    """All files of this folder."""


@pytest.fixture
def own_pico(pico: PicoFactory, tmp_path: Path) -> PicoFactory:
    """The same, copied to a folder that the test may change."""

    def copy(family: str, **options: Any) -> Path:
        return shutil.copytree(pico(family, **options), tmp_path / "base")

    return copy
