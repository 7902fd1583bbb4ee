"""Secrets are drawn once, into files that only their owner can list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from infra.make_secrets import write_secrets
from tests.support.infra_files import INFRA, ROOT, env_file


def make(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, INFRA / "make_secrets.py", folder]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_second_draw_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert make(folder).returncode == 0
    before = {path.name: path.read_text() for path in folder.iterdir()}
    again = make(folder)
    assert again.returncode == 1
    assert "nothing was changed" in again.stderr
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_what_is_printed_is_paths(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    said = make(folder).stdout
    for path in folder.glob("*.env"):
        assert not [value for value in env_file(path).values() if value in said]


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    paths = write_secrets(tmp_path / "secrets", "postgres")
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert {path.name for path in paths if path.stat().st_mode & 0o077} == {"s3_identities.json"}


def test_two_draws_share_nothing(tmp_path: Path) -> None:
    draws = []
    for name in ("a", "b"):
        write_secrets(tmp_path / name, "postgres")
        draws.append({value for path in (tmp_path / name).glob("*.env") for value in env_file(path).values()})
    assert not draws[0] & draws[1]


def test_every_secret_is_long(tmp_path: Path) -> None:
    write_secrets(tmp_path / "s", "postgres")
    for path in (tmp_path / "s").glob("*.env"):
        for name, value in env_file(path).items():
            assert len(value) >= 22, name


def test_git_and_images_leave_them_out() -> None:
    assert "/infra/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert not [line for line in ignored if line.startswith("!") and "secret" in line]
