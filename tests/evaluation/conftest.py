from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pico_models import build_pico


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pico("llama", tmp_path_factory.mktemp("bases") / "llama")
