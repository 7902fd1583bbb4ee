"""A base on a real S3 server behind a bad network: right bytes, or an error that says so; never a hang."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from botocore.exceptions import ClientError

from cross_lora_core.errors import BaseModelError, ObjectCorrupted, StoreUnavailable
from cross_lora_core.models import BaseModel, Role, local_base, open_base
from tests.models.conftest import PicoFactory
from tests.support.buckets import upload
from tests.support.faulty_proxy import ERROR_503, RESET, SPOIL, STALL, Asked, Fault, FaultyProxy, faulty_proxy
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.services
BUCKET, ATTEMPTS = "bad-bases", 2


@pytest.fixture(scope="module")
def network(seaweed: Seaweed, pico: PicoFactory) -> Iterator[tuple[FaultyProxy, int]]:
    client = seaweed.client()
    with suppress(ClientError):
        client.create_bucket(Bucket=BUCKET)
    upload(client, pico("llama", shards=2), BUCKET, "llama")
    with faulty_proxy(seaweed.port) as running:
        yield running


@pytest.fixture
def proxy(network: tuple[FaultyProxy, int]) -> Iterator[FaultyProxy]:
    network[0].clear()
    yield network[0]
    network[0].clear()


@pytest.fixture
def url(
    network: tuple[FaultyProxy, int], seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> str:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    options = {"endpoint": f"http://127.0.0.1:{network[1]}", "attempts": ATTEMPTS, "timeout": 1}
    return seaweed.url(BUCKET, "llama", cache=tmp_path / "objects", **options)


@pytest.fixture
def base(url: str, proxy: FaultyProxy, tmp_path: Path) -> BaseModel:
    opened = open_base(url, cache_folder=tmp_path / "c")
    assert len(opened.digest) == 64
    return opened


def ranged(asked: Asked) -> bool:
    return bool(asked.range)


@pytest.mark.parametrize("fault", [ERROR_503, RESET, STALL, SPOIL, Fault(cut=100), Fault(stall=100)], ids=str)
def test_one_fault_changes_nothing(
    base: BaseModel, proxy: FaultyProxy, pico: PicoFactory, fault: Fault
) -> None:
    proxy.script(fault, when=ranged)
    expected = open_base(pico("llama", shards=2)).read_weight(1, Role.down)
    assert torch.equal(base.read_weight(1, Role.down), expected)
    assert proxy.faults == [fault]


@pytest.mark.parametrize("fault", [ERROR_503, STALL, Fault(cut=100)], ids=str)
def test_a_network_that_stays_bad_is_worth_another_try(
    base: BaseModel, proxy: FaultyProxy, fault: Fault
) -> None:
    proxy.always(fault, when=ranged)
    with pytest.raises(StoreUnavailable, match="run again"):
        base.read_weight(1, Role.down)
    assert len(proxy.faults) == ATTEMPTS


def test_bytes_that_stay_wrong_are_never_used(
    base: BaseModel, proxy: FaultyProxy, url: str, tmp_path: Path
) -> None:
    proxy.always(SPOIL, when=ranged)
    with pytest.raises(BaseModelError, match="that the base's digest was made of"):
        base.read_weight(1, Role.down)
    with pytest.raises((ObjectCorrupted, BaseModelError)):
        local_base(url, base.digest)
    assert not [path for path in (tmp_path / "objects" / "folders").iterdir() if path.is_dir()]
    proxy.clear()
    assert open_base(local_base(url, base.digest), cache_folder=tmp_path / "d").digest == base.digest
