"""Adapters on S3 are the same adapters, and copies of them are checked before they are seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from cross_lora_core.adapters import check_adapter, local_adapter, read_adapter
from cross_lora_core.errors import AdapterRefused, ObjectCorrupted
from cross_lora_core.models import open_base
from tests.support.buckets import mocked_buckets, upload
from tests.support.fleets import make_adapter
from tests.support.pico_models import build_pico

BUCKET = "adapters"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pico("llama", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(base, tmp_path_factory.mktemp("adapters") / "tickets")


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch):
    with mocked_buckets(monkeypatch, BUCKET) as client:
        yield client


@pytest.fixture
def url(cloud, folder: Path, tmp_path: Path) -> str:
    return f"{upload(cloud, folder, BUCKET, 'team/tickets')}?cache={tmp_path / 'objects'}"


def test_it_is_the_same_adapter(url, folder, base):
    there, here = read_adapter(url), read_adapter(folder)
    assert (there.name, there.location, there.digest) == ("tickets", url, here.digest)
    assert check_adapter(url, open_base(base)) == check_adapter(folder, open_base(base))


@pytest.mark.parametrize("place", ["url", "folder"])
def test_tensors_begin_where_torchs_own_do(request, place):
    held = [read_adapter(request.getfixturevalue(place)) for _ in range(4)]
    updates = [module.update for adapter in held for module in adapter.modules]
    assert {side.data_ptr() % 64 for one in updates for side in (one.lora_A, one.lora_B)} == {0}


def test_what_is_no_adapter_is_refused_as_on_a_disk(cloud, url, folder):
    with pytest.raises(AdapterRefused, match="no such file"):
        read_adapter(f"s3://{BUCKET}/nothing")
    weights = (folder / "adapter_model.safetensors").read_bytes()
    for content in (weights[: len(weights) // 2], b"not safetensors", b""):
        cloud.put_object(Bucket=BUCKET, Key="team/tickets/adapter_model.safetensors", Body=content)
        with pytest.raises(AdapterRefused, match="a whole safetensors file"):
            read_adapter(url)
    cloud.delete_object(Bucket=BUCKET, Key="team/tickets/adapter_model.safetensors")
    with pytest.raises(AdapterRefused, match="neither"):
        read_adapter(url)


def test_a_copy_holds_config_and_weights(cloud, url, folder, tmp_path):
    cloud.put_object(Bucket=BUCKET, Key="team/tickets/evil.py", Body=b"x")
    copy = local_adapter(url, read_adapter(url).digest)
    assert copy.is_relative_to(tmp_path / "objects")
    assert {path.name for path in copy.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert read_adapter(copy).digest == read_adapter(folder).digest
    assert local_adapter(str(folder), "0" * 64) == folder


def test_a_copy_of_another_digest_is_not_made(url, cloud):
    with pytest.raises(ObjectCorrupted, match="of a copy"):
        local_adapter(url, "0" * 64)
    cloud.put_object(Bucket=BUCKET, Key="team/tickets/adapter_model.safetensors", Body=b"spoiled")
    with pytest.raises(ObjectCorrupted, match="safetensors"):
        local_adapter(url, "0" * 64)
