"""`flows` and `tasks` are generic names: the wheel holds exactly the packages meant, with their data."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    ignore = shutil.ignore_patterns("__pycache__")
    for package in ("cross_lora_core", "flows", "tasks"):
        shutil.copytree(ROOT / package, tree / package, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    build = "from setuptools import build_meta; import sys; print(build_meta.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=tree, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        return opened.namelist()


def test_wheel_has_exactly_our_packages(wheel_names: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names if ".dist-info" not in name}
    assert tops == {"cross_lora_core", "flows", "tasks"}


def test_wheel_has_every_module(wheel_names: list[str]) -> None:
    ours = {
        str(path.relative_to(ROOT))
        for package in ("cross_lora_core", "flows", "tasks")
        for path in (ROOT / package).rglob("*.py")
    }
    assert ours <= set(wheel_names)


def test_wheel_has_data_files(wheel_names: list[str]) -> None:
    assert "cross_lora_core/reporting/page.html" in wheel_names
    assert "cross_lora_core/py.typed" in wheel_names
    assert "cross_lora_core/responses/devils-dictionary.txt" in wheel_names
    assert any(name.endswith("script.py.mako") or "schema_versions/versions/" in name for name in wheel_names)
