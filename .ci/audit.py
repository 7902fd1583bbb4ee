"""Look for known vulnerabilities in the pinned versions; one that `audit-ignore.toml` does not excuse fails.

Where no vulnerability service answers (an index without that interface, no network), it says so and
passes: pip-audit itself would report such a run as "no known vulnerabilities".
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_PROBE = "jinja2=="
_SECONDS = 900


@dataclass(frozen=True)
class Finding:
    """A vulnerability of a pinned version, under each of its names."""

    package: str
    version: str
    names: tuple[str, ...]
    fixed_in: tuple[str, ...]

    def __str__(self) -> str:
        mend = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no fixed version"
        return f"{self.package} {self.version}: {', '.join(self.names)}; {mend}"


def main() -> int:
    """The exit status: 1 if something has to be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--constraints", type=Path, default=_HERE.parent / "constraints.txt")
    parser.add_argument("--ignore", type=Path, default=_HERE / "audit-ignore.toml")
    parser.add_argument("--pip-audit", default=str(Path(sys.executable).parent / "pip-audit"))
    given = parser.parse_args()
    pins = given.constraints.read_text().splitlines()
    service = next((one for one in ("pypi", "osv") if _answers(given.pip_audit, one, pins)), None)
    audited = _audit(given.pip_audit, service, pins) if service else None
    if audited is None:
        sys.stdout.write("audit: NOT DONE, no vulnerability service answers here\n")
        return 0
    skipped = [one["name"] for one in audited if "skip_reason" in one]
    sys.stdout.write(
        f"audit: {len(audited) - len(skipped)} packages, not known to {service}: {skipped or 'none'}\n"
    )
    return _judge(list(_findings(audited)), tomllib.loads(given.ignore.read_text())["ignore"])


def _answers(pip_audit: str, service: str, pins: Sequence[str]) -> bool:
    """Whether the service knows one package that everybody has."""
    probe = _audit(pip_audit, service, [pin for pin in pins if pin.startswith(_PROBE)])
    return bool(probe) and all("skip_reason" not in one for one in probe)


def _audit(pip_audit: str, service: str, pins: Sequence[str]) -> list[dict[str, Any]] | None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins))
        file.flush()
        command = [pip_audit, f"--vulnerability-service={service}", f"--requirement={file.name}"]
        command += ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)  # noqa: S603
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return None
    return found


def _findings(audited: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    for one in audited:
        for vulnerability in one.get("vulns", []):
            names = (vulnerability["id"], *vulnerability.get("aliases", []))
            yield Finding(one["name"], one["version"], names, tuple(vulnerability.get("fix_versions", [])))


def _judge(findings: Sequence[Finding], ignored: Sequence[dict[str, Any]]) -> int:
    today = datetime.now(UTC).date()
    open_ones = [one for one in findings if not any(_excuses(entry, one, today) for entry in ignored)]
    for one in findings:
        sys.stdout.write(f"{'VULNERABLE' if one in open_ones else 'ignored'}: {one}\n")
    return 1 if open_ones else 0


def _excuses(entry: dict[str, Any], finding: Finding, today: date) -> bool:
    """Whether an entry names the vulnerability, gives a reason, and has not run out."""
    return bool(entry["reason"].strip()) and entry["id"] in finding.names and today <= entry["until"]


if __name__ == "__main__":
    sys.exit(main())
