"""The audit of pinned versions, against a stand-in for pip-audit that answers as each service may."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.infra_files import ROOT

FINE = {"name": "jinja2", "version": "3.1.6", "vulns": []}
UNKNOWN = {"name": "jinja2", "skip_reason": "Dependency not found"}
LEAKY = {
    "name": "leaky",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1", "GHSA-1"], "fix_versions": ["1.1"], "description": "…"}],
}
EXCUSE = '[[ignore]]\nid = "{id}"\nreason = "{reason}"\nuntil = {until}\n'


def audit(
    folder: Path, answer: list[Any] | None, ignore: str = "ignore = []"
) -> subprocess.CompletedProcess[str]:
    """Run it on two pins; the stand-in answers about those it is asked, or fails as without a network."""
    stand_in = folder / "pip-audit"
    stand_in.write_text(
        f"#!{sys.executable}\nimport json, sys\nanswer = json.loads({json.dumps(json.dumps(answer))})\n"
        "if answer is None:\n    sys.exit('no network')\n"
        "file = next(one.partition('=')[2] for one in sys.argv if one.startswith('--requirement'))\n"
        "asked = [line.split('==')[0] for line in open(file).read().splitlines()]\n"
        "print(json.dumps({'dependencies': [one for one in answer if one['name'] in asked]}))\n"
    )
    stand_in.chmod(0o755)
    (folder / "constraints.txt").write_text("jinja2==3.1.6\nleaky==1.0\n")
    (folder / "ignore.toml").write_text(ignore)
    options = [
        "--constraints",
        folder / "constraints.txt",
        "--ignore",
        folder / "ignore.toml",
        "--pip-audit",
        stand_in,
    ]
    return subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit.py", *options], capture_output=True, text=True
    )


def test_nothing_known_passes(tmp_path: Path) -> None:
    done = audit(tmp_path, [FINE])
    assert done.returncode == 0
    assert "1 packages" in done.stdout


def test_a_known_vulnerability_fails_and_is_named(tmp_path: Path) -> None:
    done = audit(tmp_path, [FINE, LEAKY])
    assert done.returncode == 1
    assert "VULNERABLE: leaky 1.0: PYSEC-1, CVE-1, GHSA-1; fixed in 1.1" in done.stdout


@pytest.mark.parametrize("name", ["PYSEC-1", "CVE-1"])
def test_a_reason_excuses_it_for_a_while(tmp_path: Path, name: str) -> None:
    done = audit(tmp_path, [FINE, LEAKY], EXCUSE.format(id=name, reason="not reached", until="2999-01-01"))
    assert done.returncode == 0
    assert "ignored: leaky" in done.stdout


@pytest.mark.parametrize(
    "change",
    [{"reason": " "}, {"until": "2020-01-01"}, {"id": "PYSEC-2"}],
    ids=lambda change: next(iter(change)),
)
def test_no_reason_or_a_day_gone_by_excuses_nothing(tmp_path: Path, change: dict[str, str]) -> None:
    entry = EXCUSE.format(**{"id": "PYSEC-1", "reason": "not reached", "until": "2999-01-01"} | change)
    assert audit(tmp_path, [FINE, LEAKY], entry).returncode == 1


@pytest.mark.parametrize(
    "answer", [None, [UNKNOWN], []], ids=["no network", "no such interface", "no answer"]
)
def test_silence_is_no_clean_bill(tmp_path: Path, answer: list[Any] | None) -> None:
    done = audit(tmp_path, answer)
    assert done.returncode == 0
    assert done.stdout == "audit: NOT DONE, no vulnerability service answers here\n"


def test_the_build_runs_it() -> None:
    steps = (ROOT / ".ci" / "run").read_text().splitlines()
    assert steps.index(".venv/bin/python .ci/audit.py") == steps.index("make check") + 1
