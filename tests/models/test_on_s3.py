"""A base on S3: the same base, read by range, whole only once and on no machine twice."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from cross_lora_core.errors import BaseModelError, ConfigurationError, ObjectCorrupted, StoreUnavailable
from cross_lora_core.models import BaseModel, Role, local_base, open_base
from cross_lora_core.models import checkpoint as checkpoint_module
from cross_lora_core.models import digest as digest_module
from cross_lora_core.storage import LocalStore, s3_reading
from tests.models.conftest import PicoFactory
from tests.support.buckets import Requests, mocked_buckets, upload

BUCKET = "bases"


@pytest.fixture(autouse=True)
def cloud(monkeypatch: pytest.MonkeyPatch):
    with mocked_buckets(monkeypatch, BUCKET) as client:
        yield client


@pytest.fixture
def url(cloud, pico: PicoFactory, tmp_path: Path) -> str:
    return f"{upload(cloud, pico('llama', shards=3), BUCKET, 'llama')}?cache={tmp_path / 'objects'}"


def requests_of(base: BaseModel) -> Requests:
    return Requests(base.files._client)


def test_it_is_the_same_base(url: str, pico: PicoFactory, tmp_path: Path) -> None:
    there = open_base(url, cache_folder=tmp_path / "there")
    here = open_base(pico("llama", shards=3), cache_folder=tmp_path / "here")
    assert (there.name, there.location) == ("llama", url)
    assert there.digest == here.digest
    assert torch.equal(there.read_weight(1, Role.down), here.read_weight(1, Role.down))
    assert torch.equal(there.read_embedding([9, 3, 250]), here.read_embedding([9, 3, 250]))
    assert there.tokens() == here.tokens()
    again = pickle.loads(pickle.dumps(there))
    assert (again.location, again.digest) == (url, here.digest)


def test_opening_reads_no_tensor_and_a_weight_is_one_request_for_its_bytes(url: str, tmp_path: Path) -> None:
    base = open_base(url, cache_folder=tmp_path / "c")
    asked = requests_of(base)
    again = open_base(url, cache_folder=tmp_path / "c")
    headers = asked.bytes
    assert headers < sum(one.stop - one.start for one in again._checkpoint.tensors.values()) / 4
    weight = again.read_weight(0, Role.q)
    assert asked.bytes - headers == weight.nbytes
    assert len(asked) == 3 * 2 + 2 + 1  # length and header per shard, config and index whole, the weight


def test_scattered_rows_of_an_embedding_take_few_requests(url: str, tmp_path: Path) -> None:
    base = open_base(url, cache_folder=tmp_path / "c")
    asked = requests_of(base)
    base.read_embedding(list(range(0, base.vocabulary, 3)))
    assert len(asked) == 1


def test_its_digest_is_computed_once(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = open_base(url, cache_folder=tmp_path / "c").digest
    monkeypatch.setattr(digest_module, "read_content", never)
    assert open_base(url, cache_folder=tmp_path / "c").digest == digest


def never(*_args: object) -> None:
    raise AssertionError("read whole again")


def test_other_machines_find_the_digest_in_the_store(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "store")
    digest = open_base(url, cache_folder=tmp_path / "one", shared=store).digest
    (key,) = store.list("digests/")
    monkeypatch.setattr(digest_module, "read_content", never)
    other = open_base(url, cache_folder=tmp_path / "two", shared=store)
    assert other.digest == digest
    asked = requests_of(other)
    assert other.read_weight(0, Role.q).nbytes == asked.bytes
    assert list(store.list()) == [key]


def test_a_machine_that_knew_it_before_tells_the_store(url: str, tmp_path: Path) -> None:
    open_base(url, cache_folder=tmp_path / "c").digest  # noqa: B018
    store = LocalStore(tmp_path / "store")
    open_base(url, cache_folder=tmp_path / "c", shared=store).digest  # noqa: B018
    assert len(list(store.list("digests/"))) == 1


def test_a_base_on_a_disk_is_no_matter_of_the_store(pico: PicoFactory, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    open_base(pico("llama"), cache_folder=tmp_path / "c", shared=store).digest  # noqa: B018
    assert list(store.list()) == []


def test_replaced_weights_have_another_digest(url: str, cloud, pico: PicoFactory, tmp_path: Path) -> None:
    before = open_base(url, cache_folder=tmp_path / "c")
    digest = before.digest
    upload(cloud, pico("llama", shards=3, seed=1), BUCKET, "llama")
    assert open_base(url, cache_folder=tmp_path / "c").digest != digest
    with pytest.raises(BaseModelError, match="replaced since"):
        before.read_weight(0, Role.q)


def test_a_header_spoiled_on_the_way_is_found(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_base(url, cache_folder=tmp_path / "c").digest  # noqa: B018
    monkeypatch.setattr("cross_lora_core.models.base.read_config", spoiled_config)
    with pytest.raises(StoreUnavailable, match="spoiled on the way"):
        open_base(url, cache_folder=tmp_path / "c").digest  # noqa: B018


def test_a_header_that_came_damaged_is_asked_for_once_more(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, times = checkpoint_module._read, []

    def spoiling(*arguments):
        times.append(arguments)
        content = real(*arguments)
        return b"[" + content[1:] if len(times) in spoiled else content

    monkeypatch.setattr(checkpoint_module, "_read", spoiling)
    spoiled = {2}
    assert open_base(url).layers == 2
    spoiled = {count + len(times) for count in (2, 4)}
    with pytest.raises(BaseModelError, match="unreadable header"):
        open_base(url)


def spoiled_config(folder):
    from cross_lora_core.models.location import read_config

    return read_config(folder) | {"rms_norm_eps": 1.0}


def test_a_base_spoiled_at_its_first_reading_shows_itself(
    url: str, pico: PicoFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reading cannot be checked; every later one can."""
    from cross_lora_core.models.checkpoint import Checkpoint

    real = Checkpoint.stream
    with monkeypatch.context() as patched:
        patched.setattr(
            Checkpoint, "stream", lambda self, one: (bytes(len(piece)) for piece in real(self, one))
        )
        base = open_base(url, cache_folder=tmp_path / "c")
        assert len(base.digest) == 64
    assert base.digest != open_base(pico("llama", shards=3), cache_folder=tmp_path / "d").digest
    with pytest.raises(BaseModelError, match="that the base's digest was made of"):
        base.read_weight(0, Role.q)


@pytest.mark.parametrize(
    ("location", "kind", "words"),
    [
        ("s3://bases/nothing", BaseModelError, "no such file"),
        ("s3://key:s3cret@bases/llama", ConfigurationError, "no credentials"),
        ("s3://bases/llama?secret=s3cret", ConfigurationError, "options among"),
        ("gs://key:s3cret@bases/llama", ConfigurationError, "file:///folder or s3://"),
    ],
)
def test_what_is_no_base(location: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        open_base(location)
    assert "s3cret" not in str(caught.value)


def test_a_copy_is_a_folder_with_what_transformers_reads(url: str, cloud, tmp_path: Path) -> None:
    for extra in ("pytorch_model.bin", "modeling_llama.py", "README.md"):
        cloud.put_object(Bucket=BUCKET, Key=f"llama/{extra}", Body=b"x")
    digest = open_base(url, cache_folder=tmp_path / "c").digest
    copy = local_base(url, digest)
    assert copy.is_relative_to(tmp_path / "objects")
    assert open_base(copy, cache_folder=tmp_path / "d").digest == digest
    assert {path.suffix for path in copy.iterdir()} == {".json", ".safetensors"}
    assert local_base(url, digest) == copy


def test_a_copy_of_another_digest_is_not_made(url: str) -> None:
    with pytest.raises(ObjectCorrupted, match="of a copy"):
        local_base(url, "0" * 64)


def test_a_base_on_a_disk_is_its_own_copy(pico: PicoFactory) -> None:
    assert local_base(str(pico("llama")), "0" * 64) == pico("llama")


def test_a_large_tensor_comes_by_several_requests_each_compared_with_its_blocks(
    url: str, pico: PicoFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "BLOCK", 256)
    monkeypatch.setattr(s3_reading, "_PART", 512)
    base = open_base(url, cache_folder=tmp_path / "c")
    base.digest  # noqa: B018
    asked = requests_of(base)
    weight = base.read_weight(1, Role.down)
    assert torch.equal(weight, open_base(pico("llama", shards=3)).read_weight(1, Role.down))
    assert [size for _, size in asked] == [512] * (weight.nbytes // 512)
    real = s3_reading.read_pieces

    def spoiled(*arguments, **how):
        return (bytes(len(piece)) for piece in real(*arguments, **how))

    monkeypatch.setattr(s3_reading, "read_pieces", spoiled)
    with pytest.raises(BaseModelError, match="that the base's digest was made of"):
        base.read_weight(1, Role.down)
