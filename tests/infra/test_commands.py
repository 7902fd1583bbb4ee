"""Every command that infra/ starts exists, with its options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.infra_files import commands

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
