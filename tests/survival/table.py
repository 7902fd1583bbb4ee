"""The trials as a Markdown table, one row per victim, between two marks of a document."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.survival.trial import DONE, Result

MARKS = ("<!-- trials -->\n", "<!-- /trials -->")
COLUMNS = (
    "killed",
    "trials",
    "survived by itself",
    "recovered",
    "in flight",
    "redone",
    "lost",
    "seconds, median (most)",
)


def table(results: Sequence[Result]) -> str:
    """One row per victim in the order of the trials, and their sum."""
    victims = list(dict.fromkeys(one.victim for one in results))
    rows = [_row(victim, [one for one in results if one.victim == victim]) for victim in victims]
    lines = [COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)], *rows, _row("all", results)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def write(results: Sequence[Result], document: Path) -> None:
    """Put the table where the document's marks are."""
    before, _, rest = document.read_text().partition(MARKS[0])
    _, mark, after = rest.partition(MARKS[1])
    assert mark, f"no {MARKS} in {document}"
    document.write_text(f"{before}{MARKS[0]}\n{table(results)}\n{MARKS[1]}{after}")


def _row(name: str, results: Sequence[Result]) -> list[str]:
    alone = sum(one.survivor == str(DONE) for one in results)
    lost = sum(bool(one.lost) for one in results)
    seconds = sorted(one.seconds for one in results)
    counts = [len(results), alone, len(results) - alone - lost]
    counts += [sum(one.in_flight for one in results), sum(one.redone for one in results), lost]
    return [name, *map(str, counts), f"{seconds[len(seconds) // 2]:.0f} ({seconds[-1]:.0f})"]


if __name__ == "__main__":
    trials = [Result(**one) for one in json.loads(Path(sys.argv[1]).read_text())]
    write(trials, Path(sys.argv[2]))
