from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.pico_models import build_pico


@pytest.fixture(scope="session")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a pico base of a family, built once."""
    made: dict[str, Path] = {}

    def build(family: str) -> Path:
        if family not in made:
            made[family] = build_pico(family, tmp_path_factory.mktemp("pico") / family)
        return made[family]

    return build
