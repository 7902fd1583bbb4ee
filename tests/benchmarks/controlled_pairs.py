"""What a method of moving recovers between small bases of which is known how they are related.

    bench = ControlledBases(Path(".cross-lora/controlled"), Path("/tmp/adapters"))
    for done in measured(bench, method): print(done.pair, done.task, done.gap)
    compared(found, others)              # mean difference of the gaps, with its interval over transfers

`method(pair, adapter)` gives the target's updates by (layer, role); the adapter is a PEFT folder of the
source. Bases and rows are those of `examples/make_controlled_bases.py`. Rows are development rows: of each
evaluation file those after the first 60, which the published results are measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cross_lora_core.algebra import LoraFactors
from cross_lora_core.evaluation import (
    EvaluationRow,
    LoadedBase,
    paired_bootstrap,
    read_rows,
    row_losses,
)
from cross_lora_core.experiments import RecipeEntry
from cross_lora_core.fitting import EffectSide
from cross_lora_core.models import Role, open_base
from cross_lora_core.responses import with_updates
from cross_lora_core.training import train_adapter

TASKS = ("ticket-json", "log-fields", "iso-dates")
PAIRS = (
    ("first", "seed"),
    ("first", "tokens"),
    ("first", "wider"),
    ("first", "deeper"),
    ("first", "successor"),
)
RELATED = (("first", "successor"),)
PUBLISHED_ROWS = 60
DEVELOPMENT_ROWS = 60
TRAINING = RecipeEntry(steps=150).resolve("strong")

Updates = Mapping[tuple[int, Role], LoraFactors]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two bases as files and in memory."""

    names: tuple[str, str]
    source: EffectSide
    target: EffectSide

    def __str__(self) -> str:
        return " → ".join(self.names)


Method = Callable[[Pair, Path], Updates]


@dataclass(frozen=True)
class Transfer:
    """One adapter moved by one method; losses are means over rows, nats per character."""

    pair: str
    task: str
    base: float
    trained: float
    moved: float

    @property
    def gap(self) -> float:
        """Share of what an adapter trained on the target gains."""
        return (self.base - self.moved) / (self.base - self.trained)


class ControlledBases:
    """Bases of a folder, an adapter of every task on each, and rows; each is read once.

    Args:
        bases: what `make_controlled_bases.py` wrote.
        adapters: `<digest of a base>/<task>-strong…`, as an experiment's store has them under `trained`;
            what is missing is trained there.
        rows: how many development rows of a task.
    """

    def __init__(self, bases: Path, adapters: Path, rows: int = DEVELOPMENT_ROWS) -> None:
        self._bases, self._adapters, self._count = bases, adapters, rows
        self._sides: dict[str, EffectSide] = {}
        self._losses: dict[tuple[str, str, bool], list[float]] = {}

    def side(self, name: str) -> EffectSide:
        """A base."""
        if name not in self._sides:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            folder = self._bases / name
            self._sides[name] = EffectSide(open_base(folder), LoadedBase(folder, torch.float32, device))
        return self._sides[name]

    def pair(self, names: tuple[str, str]) -> Pair:
        """Two bases of other names."""
        return Pair(names, *(self.side(name) for name in names))

    def rows(self, task: str) -> tuple[EvaluationRow, ...]:
        """Development rows."""
        found = read_rows(self._bases / "rows" / f"{task}.evaluation.jsonl")
        return found[PUBLISHED_ROWS : PUBLISHED_ROWS + self._count]

    def adapter(self, name: str, task: str) -> Path:
        """The adapter of a base, trained if it is not there."""
        folder = self._adapters / self.side(name).base.digest
        found = sorted(folder.glob(f"{task}-strong*"))
        return found[0] if found else self._trained(name, task, folder / f"{task}-strong")

    def _trained(self, name: str, task: str, folder: Path) -> Path:
        one, rows = self.side(name), read_rows(self._bases / "rows" / f"{task}.training.jsonl")
        train_adapter(
            one.loaded, rows, TRAINING.lora(one.base), TRAINING.training, folder, base_name=name
        )  # fmt: skip
        return folder

    def losses(self, name: str, task: str, *, trained: bool) -> list[float]:
        """Losses of the development rows, of a base alone or with its own adapter."""
        key = (name, task, trained)
        if key not in self._losses:
            loaded = self.side(name).loaded
            with loaded.with_adapter(self.adapter(name, task) if trained else None):
                self._losses[key] = row_losses(loaded, self.rows(task))
        return self._losses[key]

    def losses_with(self, name: str, task: str, updates: Updates) -> list[float]:
        """Losses of the development rows with updates on."""
        one = self.side(name)
        with with_updates(one.loaded, {one.base.linear(*key).module: each for key, each in updates.items()}):
            return row_losses(one.loaded, self.rows(task))


def measured(
    bench: ControlledBases,
    method: Method,
    pairs: Sequence[tuple[str, str]] = PAIRS,
    tasks: Sequence[str] = TASKS,
) -> Iterator[Transfer]:
    """Move the adapter of every task between the bases of every pair, and measure it."""
    for names in pairs:
        pair = bench.pair(names)
        for task in tasks:
            updates = method(pair, bench.adapter(names[0], task))
            base, trained = (bench.losses(names[1], task, trained=one) for one in (False, True))
            moved = bench.losses_with(names[1], task, updates)
            yield Transfer(str(pair), task, _mean(base), _mean(trained), _mean(moved))


def summary(transfers: Sequence[Transfer], confidence: float = 0.95) -> dict[str, Any]:
    """Mean gap recovered with its bootstrap interval over transfers."""
    gaps = [one.gap for one in transfers]
    return asdict(paired_bootstrap(gaps, confidence=confidence)) | {"transfers": len(gaps)}


def compared(
    found: Sequence[Transfer], others: Sequence[Transfer], confidence: float = 0.95
) -> dict[str, Any]:
    """Mean of what is recovered more than by another method, paired over the same transfers."""
    pairs = list(zip(found, others, strict=True))
    if any((one.pair, one.task) != (other.pair, other.task) for one, other in pairs):
        raise ValueError("expected the same transfers in the same order")
    more = [one.gap - other.gap for one, other in pairs]
    better = sum(each > 0 for each in more)
    return asdict(paired_bootstrap(more, confidence=confidence)) | {"better": better, "of": len(more)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
