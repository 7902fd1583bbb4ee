"""A Prefect server for the session, two pico bases of different families, and a fleet of five."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from cross_lora_core.migration import MapSpec, ProbeSpec, StreamSpec, TransferSpec
from tests.support.fleets import make_adapter, poison, write_rows
from tests.support.pico_models import build_pico


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@dataclass(frozen=True)
class Fleet:
    """Folders of two bases and of adapters on the first."""

    source: Path
    target: Path
    sibling: Path
    adapters: Path

    def adapter(self, name: str) -> str:
        return str(self.adapters / name)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Adapters: measured and plain (good), empty (changes nothing), broken (NaN), wide (all linear, rsLoRA)."""
    root = tmp_path_factory.mktemp("fleet")
    source = build_pico("llama", root / "old-llama", layers=3)
    target = build_pico(
        "gemma3_text", root / "new-gemma", width=48, layers=4, seed=1, tokenizer="sentencepiece-like"
    )
    sibling = build_pico("llama", root / "sibling-llama", layers=3, seed=2)
    adapters = root / "adapters"
    write_rows(make_adapter(source, adapters / "measured", seed=1))
    make_adapter(source, adapters / "plain", seed=2)
    write_rows(make_adapter(source, adapters / "empty", strength=0.0))
    poison(make_adapter(source, adapters / "broken", seed=3))
    make_adapter(source, adapters / "wide", seed=4, target_modules="all-linear", use_rslora=True, r=2)
    return Fleet(source, target, sibling, adapters)


@pytest.fixture
def few_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several layer groups, and as many strings as a pico model needs, for methods that run the bases."""
    few = {
        "probes": ProbeSpec(count=12, tokens=24),
        "strings": ProbeSpec(count=16, tokens=24, contrasts=(0.0,), seed=1),
        "streams": StreamSpec(ProbeSpec(count=16, tokens=24)),
        "maps": MapSpec(count=8, held_out=3, tokens=24),
    }
    for name, spec in few.items():
        monkeypatch.setattr(TransferSpec, name, property(lambda _, spec=spec: spec))
    monkeypatch.setenv("CROSS_LORA_GROUP_BYTES", "65536")
