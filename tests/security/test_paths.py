"""Whatever a name, a key, a link or a path says, nothing is written or published outside its place."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cross_lora_core.adapters import check_adapter, read_adapter
from cross_lora_core.errors import AdapterRefused, BaseModelError, ConfigurationError
from cross_lora_core.evaluation import read_rows
from cross_lora_core.migration import MigrationRequest, TransferSpec, adapter_prefix, alias_key, path_segment
from cross_lora_core.models import open_base
from cross_lora_core.storage import LocalStore, S3Options, S3Store, Store, check_key
from tests.support.buckets import mocked_buckets
from tests.support.fleets import make_adapter
from tests.support.pico_models import build_pico

SECRET = "root:$6$very-secret-hash:19000"
ESCAPES = [
    "..",
    "../x",
    "a/../../x",
    "/etc/passwd",
    "a/..",
    "./a",
    "a/./b",
    "..\\x",
    "a\0b",
    "~/x",
    "%2e%2e/x",
    "a//b",
    ".ssh/x",
]


@dataclass(frozen=True)
class Base:
    name: str
    digest: str = "d" * 64
    tokenizer: str = "t" * 64


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_name_of_a_base_or_an_adapter_stays_below_adapters(base: str, adapter: str) -> None:
    request = MigrationRequest(source="old", targets=["new"])
    spec = TransferSpec.from_request(request)
    for key in (
        adapter_prefix(Base("old"), Base(base), adapter, "a" * 64, spec),
        alias_key(base, adapter),
    ):
        check_key(key)
        assert key.startswith("adapters/")
        assert Path("/store", key).resolve() == Path("/store", key)


@pytest.mark.parametrize("name", ESCAPES)
def test_no_name_is_more_than_one_segment(name: str) -> None:
    segment = path_segment(name)
    assert "/" not in segment
    assert not segment.startswith(".")
    check_key(segment)


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if request.param == "local":
        yield LocalStore(tmp_path / "store")
        return
    with mocked_buckets(monkeypatch, "fleet") as client:
        client.put_object(Bucket="fleet", Key="secret", Body=SECRET.encode())
        yield S3Store("fleet", "team/a", S3Options(cache=tmp_path / "cache"))


@pytest.mark.parametrize("key", ESCAPES)
def test_no_key_leaves_the_store(store: Store, tmp_path: Path, key: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("x")
    for use in (
        lambda: store.put(key, b"x"),
        lambda: store.put_pointer(key, b"x"),
        lambda: store.read_pointer(key),
        lambda: store.stat(key),
        lambda: store.fetch(key),
        lambda: store.get(key),
        lambda: store.read_range(key, 0, 9),
        lambda: store.delete(key),
        lambda: store.put_folder(key, folder),
        lambda: store.folder_url(key),
    ):
        with pytest.raises(ConfigurationError):
            use()


def test_listing_never_leaves_the_prefix(store: Store) -> None:
    store.put("mine", b"x")
    for prefix in ("../", "..", "/", "../../", "a/../../"):
        assert SECRET not in str(list(store.list(prefix)))
        assert all(check_key(key) for key in store.list(prefix))
    assert list(store.list()) == ["mine"]


def test_a_link_in_a_folder_is_not_published(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "shadow").write_text(SECRET)
    for name, target in (("file", outside / "shadow"), ("folder", outside)):
        folder = tmp_path / f"with a link to a {name}"
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")
        (folder / name).symlink_to(target)
        with pytest.raises(ConfigurationError, match="link"):
            store.put_folder(f"adapters/{name}", folder)
    assert list(store.list("adapters/")) == []


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pico("llama", tmp_path_factory.mktemp("pico") / "base", layers=1)


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return make_adapter(base, tmp_path / "adapter")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "shadow"
    file.write_text(SECRET)
    return file


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_link_to_something_else_is_refused_without_a_word_of_it(
    adapter: Path, secret: Path, name: str
) -> None:
    (adapter / name).unlink()
    (adapter / name).symlink_to(secret)
    found = check_adapter(adapter)
    assert found.status == "refused"
    assert "secret-hash" not in json.dumps(found.as_dict())


def test_a_link_to_a_good_file_is_read(adapter: Path, tmp_path: Path) -> None:
    """Hub caches are made of links."""
    blob = tmp_path / "blob"
    (adapter / "adapter_model.safetensors").rename(blob)
    digest = read_adapter(adapter_with(blob, adapter)).digest
    assert len(digest) == 64


def adapter_with(blob: Path, adapter: Path) -> Path:
    (adapter / "adapter_model.safetensors").symlink_to(blob)
    return adapter


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_what_is_no_file_at_all_is_refused(adapter: Path, name: str) -> None:
    """A pipe would make the reader wait for ever."""
    (adapter / name).unlink()
    os.mkfifo(adapter / name)
    with pytest.raises(AdapterRefused):
        read_adapter(adapter)


def test_an_evaluation_file_that_is_something_else_tells_nothing_of_it(secret: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_rows(secret)
    assert "secret-hash" not in str(caught.value)


def test_an_evaluation_file_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ConfigurationError):
            read_rows(path)


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "..", "a/b.safetensors", ""])
def test_an_index_cannot_name_shards_elsewhere(tmp_path: Path, shard: str) -> None:
    folder = build_pico("llama", tmp_path / "base", layers=1)
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {"weight_map": {"model.embed_tokens.weight": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BaseModelError):
        open_base(folder)
