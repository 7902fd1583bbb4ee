"""Run many seeded trials and write what became of them.

Usage: python -m tests.survival.run --trials 50 --seed 7 --json out.json --markdown docs/survival.md
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tests.survival import table
from tests.survival.deployed import deploy
from tests.survival.stand import standing
from tests.survival.trial import VICTIMS, Result, run_trial, run_undisturbed


def trials(folder: Path, numbers: range, seed: int, victims: list[str]) -> Iterator[Result]:
    """One result after the other; the victims take turns."""
    with standing(folder) as stand:
        undisturbed = run_undisturbed(stand)
        if "worker" in victims:
            deploy(stand)
        for number in numbers:
            victim = victims[number % len(victims)]
            try:
                yield run_trial(stand, undisturbed, number, seed, victim)
            except Exception:
                yield Result(number, seed, victim, "", lost=[traceback.format_exc()])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first; so that two may share them"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--victim", action="append", choices=sorted(VICTIMS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="document that gets the table between its marks")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="survival-"))
    results = []
    numbers = range(chosen.first, chosen.trials)
    for result in trials(folder, numbers, chosen.seed, chosen.victim or list(VICTIMS)):
        results.append(result)
        print(json.dumps(asdict(result)), flush=True)
        if chosen.json:
            chosen.json.parent.mkdir(parents=True, exist_ok=True)
            chosen.json.write_text(json.dumps([asdict(one) for one in results], indent=1))
    if chosen.markdown:
        table.write(results, chosen.markdown)
    lost = [one for one in results if one.lost]
    print(f"{len(results)} trials, lost = {len(lost)}, kept in {folder}", file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
