"""The results file of an experiment: every measured cell with what it rests on, as one JSON document.

A file is replaced whole, under a lock that other processes of this machine wait for, so that a reader
sees the old or the new one and two runs on different cells lose nothing of each other's.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation import Figures, Score
from cross_lora_core.experiments.cells import Cell

__all__ = ["AdapterFacts", "CellResult", "Cost", "Energy", "LossesKept", "Results", "read_results", "record"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cost(_Value):
    """What making something took.

    Attributes:
        seconds: wall time.
        peak_bytes: most memory the process had meanwhile, whatever else it held; None where unknown.
        device_bytes: the same of a GPU's memory; None without one.
    """

    seconds: float
    peak_bytes: int | None = None
    device_bytes: int | None = None


class AdapterFacts(_Value):
    """The adapter a cell was measured with.

    Attributes:
        location: where it is.
        digest: of its weights and config.
        rank: of its factors.
        size: bytes of its weights' file.
        modules: weights it changes.
        steps: it was trained for; None of one that was moved.
    """

    location: str
    digest: str
    rank: int
    size: int
    modules: int
    steps: int | None = None


class LossesKept(_Value):
    """Where the catalog keeps the losses by row: the key of its evaluations."""

    base_digest: str
    adapter_digest: str
    dataset_digest: str
    dtype: str
    environment: str


class Energy(_Value):
    """Share of the squared Frobenius norm that a rank keeps of a base's weights.

    Attributes:
        mean: over all weights.
        least: of any weight, with its name.
        roles: mean by role.
    """

    mean: float
    least: float
    least_module: str
    roles: dict[str, float]


class CellResult(_Value):
    """What became of one cell.

    Attributes:
        key: of everything the figure depends on; another key means that it has to be measured anew.
        status: `measured`; `refused`: there is nothing to measure; `failed`: it is tried again.
        reason: why there is nothing, or what the verdict rests on.
        exact_match: of the rows without choices, where the task asks for it: those the model writes.
        confidence: level of the intervals.
        verdict: of the migration that moved the adapter.
        cost: of training or moving the adapter; None where it was found made.
        machine: what measured it.
        measured_at: UTC, ISO 8601.
    """

    cell: Cell
    key: str
    status: Literal["measured", "refused", "failed"]
    reason: str = ""
    figures: Figures | None = None
    exact_match: Score | None = None
    confidence: float | None = None
    energy: Energy | None = None
    adapter: AdapterFacts | None = None
    losses: LossesKept | None = None
    verdict: str | None = None
    cost: Cost | None = None
    machine: str = ""
    measured_at: str = ""

    @property
    def score(self) -> Score | None:
        """Accuracy where the task has choices, exact matches where text was generated; None where neither."""
        accuracy = self.figures.accuracy if self.figures else None
        return accuracy or self.exact_match


class Results(_Value):
    """All results of an experiment by the ids of their cells."""

    format: Literal[1]
    experiment: str
    cells: dict[str, CellResult] = {}

    def of(self, cell: Cell) -> CellResult | None:
        """What became of a cell; None if it was not run."""
        return self.cells.get(cell.id)

    def is_done(self, cell: Cell, key: str) -> bool:
        """Whether a cell need not be run: its inputs are the same, and it did not fail."""
        found = self.of(cell)
        return found is not None and found.key == key and found.status != "failed"


def read_results(path: Path, experiment: str) -> Results:
    """The results of an experiment; empty where there is no file.

    Raises:
        ConfigurationError: the file is none, or of another experiment.
    """
    try:
        results = Results.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Results(format=1, experiment=experiment)
    except (OSError, ValidationError) as error:
        raise _unusable("a results file", str(error).splitlines()[0], path) from error
    if results.experiment != experiment:
        raise _unusable(f"results of {experiment}", f"results of {results.experiment}", path)
    return results


def record(path: Path, experiment: str, found: Mapping[str, CellResult]) -> Results:
    """Add results to the file or replace those of the same cells; the others stay.

    What was found made costs what it did when it was made.

    Returns:
        What the file holds now.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        before = read_results(path, experiment)
        cells = {name: _with_cost(one, before.cells.get(name)) for name, one in found.items()}
        after = before.model_copy(update={"cells": before.cells | cells})
        _replace(path, after.model_dump_json(indent=1, exclude_defaults=True) + "\n")
    return after


def _with_cost(found: CellResult, before: CellResult | None) -> CellResult:
    if found.cost is not None or before is None or before.key != found.key:
        return found
    return found.model_copy(update={"cost": before.cost})


def _replace(path: Path, text: str) -> None:
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unusable(expected: str, got: str, path: Path) -> ConfigurationError:
    remedy = "Move it away to begin anew; what store and catalog hold is found again."
    return ConfigurationError(expected, got, str(path), remedy)
