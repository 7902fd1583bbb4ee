"""What one more adapter moves over the wire when bases, adapters and store lie on S3: a hard limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cross_lora_core.migration import MigrationRequest
from cross_lora_core.storage import s3 as s3_module
from flows.migrate_fleet import migrate_fleet
from tests.support.buckets import upload
from tests.support.fleets import make_adapter
from tests.support.pico_models import build_pico
from tests.support.seaweed import Seaweed
from tests.support.traffic import Traffic, counting

pytestmark = [pytest.mark.services, pytest.mark.flow]
BUCKET, GROUPS = "traffic", 3


Place = Callable[[str], str]


@dataclass(frozen=True)
class Second:
    """The traffic of the second adapter's migration, and the bytes of its config and weights."""

    traffic: Traffic
    size: int


def bytes_in(folder: Path) -> int:
    return sum(
        (folder / name).stat().st_size for name in ("adapter_config.json", "adapter_model.safetensors")
    )


@pytest.fixture(scope="module")
def place(seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The URL of a prefix, on a server that is all there is of the store, for a machine with empty caches."""
    here = tmp_path_factory.mktemp("machine")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in seaweed.environment.items():
            patched.setenv(name, value)
        patched.setenv("XDG_CACHE_HOME", str(here / "cache"))
        patched.setenv("CROSS_LORA_HOME", str(here / "home"))
        patched.setenv("CROSS_LORA_GROUP_BYTES", str(200 << 10))
        patched.setattr(s3_module, "_LOOK_SECONDS", 3600.0)  # however slow this machine is
        patched.setenv("CROSS_LORA_STORE", seaweed.url(BUCKET, "store"))
        yield lambda prefix: seaweed.url(BUCKET, prefix)


@pytest.fixture(scope="module")
def second(
    seaweed: Seaweed, place: Place, prefect_server: None, tmp_path_factory: pytest.TempPathFactory
) -> Second:
    """Two adapters are migrated, one after the other."""
    folder = tmp_path_factory.mktemp("local")
    source = build_pico("llama", folder / "bases/old", width=64, layers=3)
    build_pico("qwen2", folder / "bases/new", width=80, layers=GROUPS, seed=1)
    adapters = [make_adapter(source, folder / f"adapters/a{one}", seed=one, r=16) for one in range(2)]
    seaweed.client().create_bucket(Bucket=BUCKET)
    for name in ("bases", "adapters"):
        upload(seaweed.client(), folder / name, BUCKET, name)
    for one in adapters:
        request = MigrationRequest(
            source=place("bases/old"),
            targets=[place("bases/new")],
            adapters=[place(f"adapters/{one.name}")],
            rank=48,
        )
        with counting() as traffic:
            assert migrate_fleet(request).complete
    return Second(traffic, bytes_in(adapters[1]))


def test_it_moves_itself_its_successor_and_little_else(second: Second) -> None:
    traffic = second.traffic
    assert traffic.of("adapters").received == 2 * second.size, "once to plan, once to the machine"
    assert traffic.of("store").received == 0, "what this machine wrote is read from its disk"
    assert traffic.of("store/factors").sent == traffic.of("store/alignments").sent == 0
    assert 0 < traffic.of("store/projections").sent < 1.5 * traffic.of("store/adapters").sent
    assert traffic.of("bases").received < 60_000, "configs and headers, and no tensor"


def test_it_takes_few_requests(second: Second) -> None:
    traffic = second.traffic
    assert len(traffic.of("store/projections")) == 2 * GROUPS, "a look and a PUT for each layer group"
    assert len(traffic) <= 56
