"""Every command that infra/ starts exists, with its options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tests.support.infra_files import ROOT, commands

STARTED = {
    place: command
    for place, command in commands().items()
    if command[0] in ("cross-lora", "prefect", "mlflow")
}


def split(command: list[str]) -> tuple[list[str], list[str]]:
    """The words before the first option, and the options."""
    first = next((at for at, word in enumerate(command) if word.startswith("-")), len(command))
    return command[:first], [word for word in command[first:] if word.startswith("--")]


@pytest.mark.parametrize("place", STARTED)
def test_every_command_exists_with_its_options(place: str) -> None:
    words, options = split(STARTED[place])
    program = Path(sys.executable).parent / words[0]
    env = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [program, *words[1:], "--help"], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for option in options:
        assert option in done.stdout, f"{words} has no {option}"


def test_there_are_commands_to_look_at() -> None:
    assert len(STARTED) >= 8


DOCS = {
    path.name: path.read_text() for path in (ROOT / "docs" / "operations.md", ROOT / "docs" / "security.md")
}
MADE_BY_THE_READER = {"infra/secrets", "infra/webhooks.yaml"}


@pytest.mark.parametrize("name", DOCS)
def test_the_runbook_names_commands_that_exist(name: str) -> None:
    known = CliRunner().invoke(app, ["--help"]).output
    for group in sorted(set(re.findall(r"(?<!-n )\bcross-lora ([a-z]+)\b", DOCS[name]))):
        assert re.search(rf"\b{group}\b", known), group


@pytest.mark.parametrize("name", DOCS)
def test_the_runbook_names_files_that_exist(name: str) -> None:
    for path in sorted(set(re.findall(r"\b(?:infra|tests|docs)/[\w./-]*\w", DOCS[name]))):
        given = any(path.startswith(one) for one in MADE_BY_THE_READER)
        assert given or (ROOT / path).exists(), path
