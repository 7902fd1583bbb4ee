"""Identity: equal for the same model however it is stored, different for any other."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cross_lora_core.models import digest as digest_module
from cross_lora_core.models import open_base
from cross_lora_core.models.checkpoint import open_checkpoint
from cross_lora_core.models.digest import normalise_config
from cross_lora_core.models.known_digests import default_cache_folder
from cross_lora_core.storage import LocalFolder
from tests.models.conftest import PicoFactory

WEIGHTS = "model.safetensors"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests that were really computed, in order."""
    calls: list[str] = []
    original = digest_module.read_content

    def counting(*arguments: Any) -> digest_module.Content:
        content = original(*arguments)
        calls.append(content.digest)
        return content

    monkeypatch.setattr(digest_module, "read_content", counting)
    return calls


def age(folder: Path, seconds: float = 3600) -> None:
    """Make every file look as if it was written some time ago."""
    then = time.time() - seconds
    for file in folder.iterdir():
        os.utime(file, (then, then))


def digest_of(folder: Path, cache: Path) -> str:
    return open_base(folder, cache_folder=cache).digest


def flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_sharding_does_not_matter(pico: PicoFactory, tmp_path: Path) -> None:
    digests = {digest_of(pico("llama", shards=shards), tmp_path) for shards in (None, 1, 3)}
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_name_and_place_do_not_matter(own_pico: PicoFactory, pico: PicoFactory, tmp_path: Path) -> None:
    copied = open_base(own_pico("llama"), name="another", revision="r", cache_folder=tmp_path / "c")
    assert copied.digest == digest_of(pico("llama"), tmp_path / "c")


def test_one_bit_matters(own_pico: PicoFactory, tmp_path: Path) -> None:
    folder = own_pico("llama")
    before = digest_of(folder, tmp_path / "c")
    flip_last_bit(folder / WEIGHTS)
    assert digest_of(folder, tmp_path / "c") != before


@pytest.mark.parametrize("options", [{"seed": 1}, {"layers": 3}, {"overrides": {"rms_norm_eps": 1e-3}}])
def test_another_model_has_another_digest(pico: PicoFactory, tmp_path: Path, options: dict) -> None:
    assert digest_of(pico("llama", **options), tmp_path) != digest_of(pico("llama"), tmp_path)


def test_the_same_bytes_in_another_shape_are_another_model(tmp_path: Path) -> None:
    digests = set()
    for number, tensor in enumerate((torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(2, 6).half())):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file({"w": tensor}, folder / WEIGHTS)
        digests.add(digest_module.read_content({}, open_checkpoint(LocalFolder(folder))).digest)
    assert len(digests) == 3


def test_bookkeeping_in_the_config_does_not_matter(own_pico: PicoFactory, tmp_path: Path) -> None:
    folder = own_pico("llama")
    before = digest_of(folder, tmp_path / "c")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.update(
        _name_or_path="x", transformers_version="9", torch_dtype="float64", use_cache=False, extra=None
    )
    path.write_text(json.dumps(dict(reversed(config.items())), indent=8))
    assert digest_of(folder, tmp_path / "c") == before


def test_normalising_reaches_nested_configs_and_keeps_what_defines_the_function() -> None:
    config = {
        "b": 1,
        "a": {"dtype": "f16", "rope": {"_x": 1, "theta": 2}},
        "null": None,
        "zero": 0,
        "off": False,
    }
    assert normalise_config(config) == {"a": {"rope": {"theta": 2}}, "b": 1, "off": False, "zero": 0}


def test_a_known_base_is_not_read_again(own_pico: PicoFactory, tmp_path: Path, computed: list[str]) -> None:
    folder, cache = own_pico("llama", shards=3), tmp_path / "c"
    age(folder)
    assert digest_of(folder, cache) == digest_of(folder, cache)
    assert len(computed) == 1


def test_a_changed_file_is_read_again(own_pico: PicoFactory, tmp_path: Path, computed: list[str]) -> None:
    folder, cache = own_pico("llama", shards=3), tmp_path / "c"
    age(folder)
    before = digest_of(folder, cache)
    flip_last_bit(sorted(folder.glob("*.safetensors"))[1])
    age(folder, seconds=1800)
    assert digest_of(folder, cache) != before
    assert len(computed) == 2


def test_a_file_written_just_now_is_not_trusted_to_keep_its_time(
    own_pico: PicoFactory, tmp_path: Path, computed: list[str]
) -> None:
    folder, cache = own_pico("llama"), tmp_path / "c"
    (folder / WEIGHTS).touch()
    digest_of(folder, cache)
    digest_of(folder, cache)
    assert len(computed) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"version": 0}'])
def test_a_damaged_cache_is_ignored(
    own_pico: PicoFactory, tmp_path: Path, computed: list[str], content: str
) -> None:
    folder, cache = own_pico("llama"), tmp_path / "c"
    age(folder)
    before = digest_of(folder, cache)
    (sidecar,) = (cache / "digests").iterdir()
    sidecar.write_text(content)
    assert digest_of(folder, cache) == before
    assert len(computed) == 2


def test_an_unwritable_cache_is_tolerated(own_pico: PicoFactory, pico: PicoFactory, tmp_path: Path) -> None:
    folder = own_pico("llama")
    age(folder)
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    assert digest_of(folder, blocked) == digest_of(pico("llama"), tmp_path / "c")


def test_the_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "cross-lora"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    assert default_cache_folder() == Path("/somewhere/.cache/cross-lora")


def test_reading_tells_how_far_it_is(pico: PicoFactory, tmp_path: Path):
    told: list[int] = []
    base = open_base(pico("llama"), cache_folder=tmp_path / "cache")
    assert base.read_digest(told.append) == base.digest
    assert sum(told) == base.stored_bytes > 0
