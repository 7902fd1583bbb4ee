"""The Dockerfile, by hadolint and by what every image must have."""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.infra_files import INFRA, ROOT, dockerfile

TARGETS = ("worker-cpu", "worker-gpu", "webhook", "prefect-server", "mlflow")


def stages() -> dict[str, tuple[str, str]]:
    """Parent and body of each stage."""
    parts = re.split(r"^FROM (\S+) AS (\S+)$", dockerfile(), flags=re.MULTILINE)[1:]
    return {
        name: (parent, body) for parent, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def whole(target: str) -> str:
    """The bodies of a stage and of those it is from."""
    found, text = stages(), ""
    while target in found:
        parent, body = found[target]
        text, target = body + text, parent
    return text


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, INFRA / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_a_user_without_rights_and_can_be_watched(target: str) -> None:
    text = whole(target)
    assert re.findall(r"^USER (.*)$", text, flags=re.MULTILINE) == ["10001:10001"]
    assert re.search(r"^HEALTHCHECK .* CMD \[", text, flags=re.MULTILINE)
    assert re.search(r"^CMD \[", text, flags=re.MULTILINE)
    assert "org.opencontainers.image.revision" in text


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_no_build_tools_and_no_sources(target: str) -> None:
    assert "pip install" not in whole(target)
    assert "COPY cross_lora_core" not in whole(target)


def test_every_installation_is_pinned() -> None:
    for line in re.findall(r"pip install.*", dockerfile()):
        assert "constraint" in line


def test_nothing_looks_like_a_secret() -> None:
    for line in re.findall(r"^(?:ENV|ARG) .*$", dockerfile(), flags=re.MULTILINE):
        assert not re.search(r"PASSWORD|SECRET|TOKEN|AUTH|_KEY", line)


def copied() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.*)$", dockerfile(), flags=re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_exists_and_is_sent_to_the_builder(source: str) -> None:
    assert (ROOT / source).exists()
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert any(fnmatch(source, pattern) for pattern in sent)
