"""An adapter on S3 is read from this machine's copy of it, and never as another one than was planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cross_lora_core.adapters import local_adapter, read_adapter
from cross_lora_core.errors import FinalError
from cross_lora_core.migration import AdapterRef
from tasks.runtime import read_ref
from tests.support.buckets import mocked_buckets, upload
from tests.support.fleets import make_adapter
from tests.support.pico_models import build_pico
from tests.support.traffic import counting

BUCKET = "adapters"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters of one base."""
    root = tmp_path_factory.mktemp("fleet")
    base = build_pico("llama", root / "base")
    return [make_adapter(base, root / str(seed), seed=seed) for seed in range(2)]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch):
    with mocked_buckets(monkeypatch, BUCKET) as client:
        yield client


@pytest.fixture
def ref(cloud: Any, folders: list[Path], tmp_path: Path) -> AdapterRef:
    url = f"{upload(cloud, folders[0], BUCKET, 'tickets')}?cache={tmp_path / 'objects'}"
    digest = read_adapter(url).digest
    return AdapterRef("tickets", url, digest, None, None, None, 4, None, "lora")


def test_it_comes_to_the_machine_once(ref: AdapterRef) -> None:
    first = read_ref(ref)
    with counting() as traffic:
        again = read_ref(ref)
    assert traffic.received == 0
    assert (first.name, first.location, first.digest) == (again.name, again.location, again.digest)
    assert (first.location, first.digest) == (ref.location, ref.digest)


def test_where_the_copy_was_spoiled_it_is_read_from_s3(ref: AdapterRef) -> None:
    file = local_adapter(ref.location, ref.digest) / "adapter_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-4] + b"\0\0\0\x40")
    assert read_ref(ref).digest == ref.digest


def test_another_adapter_at_its_place_is_refused(ref: AdapterRef, cloud: Any, folders: list[Path]) -> None:
    upload(cloud, folders[1], BUCKET, "tickets")
    with pytest.raises(FinalError, match="the adapter that was planned with"):
        read_ref(ref)
