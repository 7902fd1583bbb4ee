"""Folders and hub ids; no test here reaches a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from cross_lora_core.errors import BaseModelError
from cross_lora_core.models import open_base
from tests.models.conftest import PicoFactory


def answer_with(monkeypatch: pytest.MonkeyPatch, result: Path | Exception) -> list[dict[str, Any]]:
    """Let the hub answer with a folder or an error; what it was asked is appended to the list."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(repo_id: str, **options: Any) -> str:
        asked.append({"repo_id": repo_id, **options})
        if isinstance(result, Exception):
            raise result
        return str(result)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def hub_snapshot(pico: PicoFactory, tmp_path: Path) -> Path:
    """A folder laid out like the hub's cache."""
    snapshot = tmp_path / "hub" / "models--org--pico-llama" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for file in pico("llama").iterdir():
        (snapshot / file.name).symlink_to(file)
    return snapshot


def test_a_hub_id_is_downloaded_and_pinned_to_its_commit(
    monkeypatch: pytest.MonkeyPatch, pico: PicoFactory, tmp_path: Path
) -> None:
    asked = answer_with(monkeypatch, hub_snapshot(pico, tmp_path))
    base = open_base("org/pico-llama", revision="main")
    assert (base.name, base.revision) == ("org/pico-llama", "0123abcd")
    assert asked[0]["repo_id"] == "org/pico-llama"
    assert asked[0]["revision"] == "main"
    assert "*.safetensors" in asked[0]["allow_patterns"]
    assert not any("bin" in pattern or "py" in pattern for pattern in asked[0]["allow_patterns"])


def test_a_snapshot_in_the_hubs_cache_knows_its_repository(pico: PicoFactory, tmp_path: Path) -> None:
    base = open_base(hub_snapshot(pico, tmp_path))
    assert (base.name, base.revision) == ("org/pico-llama", "0123abcd")


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("cannot reach the hub\nand more lines"),
        HFValidationError("bad id"),
        ConnectionError(),
    ],
)
def test_a_hub_that_cannot_be_reached_is_explained(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    answer_with(monkeypatch, error)
    with pytest.raises(BaseModelError, match=type(error).__name__) as caught:
        open_base("org/no-such-model", revision="v2")
    assert caught.value.where == "org/no-such-model at v2"
    assert "give the folder" in caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("location", ["./no/such/folder", "/no/such/folder", "~/no-such-folder", "a/b/c", ""])
def test_what_cannot_be_a_hub_id_never_reaches_the_hub(
    monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    asked = answer_with(monkeypatch, AssertionError("asked the hub"))
    with pytest.raises(BaseModelError, match="the folder of a base model"):
        open_base(location if location else Path("no/such/folder/at/all"))
    assert asked == []


def test_a_file_is_not_a_base(pico: PicoFactory) -> None:
    with pytest.raises(BaseModelError, match="a file"):
        open_base(pico("llama") / "model.safetensors")
