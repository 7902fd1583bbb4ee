"""Measure one cell of an experiment: a base, with the adapter or control of the cell, on held-out rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from prefect import task

from cross_lora_core.adapters import Adapter, local_adapter, read_adapter
from cross_lora_core.evaluation import (
    EvaluationRow,
    Figures,
    Score,
    dataset_digest,
    each_choice,
    environment,
    figures,
    read_rows,
    score,
)
from cross_lora_core.experiments import (
    AdapterFacts,
    Cell,
    CellResult,
    Energy,
    LossesKept,
    RowsRef,
    energies_kept,
    machine,
)
from cross_lora_core.migration import BaseRef
from cross_lora_core.settings import Settings, load_settings
from cross_lora_core.storage import open_folder
from tasks.device_slots import DEVICE_TAG, device_slot, torch_device
from tasks.evaluate_adapter import measured_losses, measured_matches
from tasks.runtime import TASK_OPTIONS, open_ref
from tasks.write_controls import random_control, write_control, zero_control

__all__ = ["CellJob", "measure_cell", "measure_energies"]

_WEIGHTS = "adapter_model.safetensors"

_ByRow = Callable[[BaseRef, Path | None, Sequence[EvaluationRow], Settings], list[float]]
_Compared = tuple[list[float], list[float] | None, list[float] | None]
"""Of the cell, of the base alone, of the adapter trained on it."""


@dataclass(frozen=True)
class CellJob:
    """A cell with everything it is measured with.

    Attributes:
        key: of its inputs.
        base: it is measured on.
        rows: it is measured by.
        adapter: location of the adapter, of a control that beside which it is measured; None for the base.
        trained: location of the adapter trained on this base, whose gain is the gap.
        output_dtype: that a control is written in.
        confidence: level of the intervals.
        steps: the adapter was trained for, if it was.
        generate: count exact matches, too.
    """

    cell: Cell
    key: str
    base: BaseRef
    rows: RowsRef
    adapter: str | None = None
    trained: str | None = None
    output_dtype: str = "float16"
    confidence: float = 0.95
    steps: int | None = None
    generate: bool = False


@task(name="measure", task_run_name="measure {job.cell.id}", tags=[DEVICE_TAG], **TASK_OPTIONS)
def measure_cell(job: CellJob) -> CellResult:
    """Figures of the cell, from the catalog where it has what was measured by row."""
    rows = read_rows(job.rows.location)
    with device_slot(), _put_on(job) as folder:
        found, matched = _figures(job, rows, folder)
        return CellResult(
            cell=job.cell,
            key=job.key,
            status="measured",
            figures=found,
            exact_match=matched,
            confidence=job.confidence,
            adapter=_facts(job) if job.cell.kind in ("trained", "transferred") else None,
            losses=_kept(job, folder, rows),
            machine=machine(torch_device()),
            measured_at=_now(),
        )


def _figures(
    job: CellJob, rows: Sequence[EvaluationRow], folder: Path | None
) -> tuple[Figures, Score | None]:
    """Compared with the base alone and with the adapter trained on it, where the cell has them."""
    settings = load_settings()
    trained = local_adapter(job.trained) if job.trained else None
    level, seed = job.confidence, settings.seed

    def by_row(measured: _ByRow, scored: Sequence[EvaluationRow]) -> _Compared:
        return (
            measured(job.base, folder, scored, settings),
            measured(job.base, None, scored, settings) if folder else None,
            measured(job.base, trained, scored, settings) if trained else None,
        )

    found = figures(rows, *by_row(measured_losses, each_choice(rows)), confidence=level, seed=seed)
    written = [row for row in rows if not row.choices] if job.generate else []
    matches = by_row(measured_matches, written) if written else None
    return found, score(*matches, confidence=level, seed=seed) if matches else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _put_on(job: CellJob) -> Iterator[Path | None]:
    """Folder of what the base is measured with, for the length of the block."""
    folder = local_adapter(job.adapter) if job.adapter else None
    if folder is None or job.cell.kind not in ("zero", "random"):
        yield folder
        return
    control = zero_control if job.cell.kind == "zero" else random_control(load_settings().seed)
    with tempfile.TemporaryDirectory(prefix="cross-lora-") as scratch:
        written = Path(scratch) / job.cell.kind
        write_control(folder, open_ref(job.base), getattr(torch, job.output_dtype), written, control)
        yield written


def _facts(job: CellJob) -> AdapterFacts:
    assert job.adapter is not None
    adapter: Adapter = read_adapter(job.adapter)
    return AdapterFacts(
        location=job.adapter,
        digest=adapter.digest,
        rank=max(one.update.rank for one in adapter.modules),
        size=open_folder(job.adapter).size(_WEIGHTS),
        modules=len(adapter.modules),
        steps=job.steps,
    )


def _kept(job: CellJob, folder: Path | None, rows: Sequence[EvaluationRow]) -> LossesKept:
    return LossesKept(
        base_digest=job.base.digest,
        adapter_digest=read_adapter(folder).digest if folder else "",
        dataset_digest=dataset_digest(each_choice(rows)),
        dtype=load_settings().evaluation_dtype,
        environment=environment(torch_device()),
    )


@task(name="energy", task_run_name="energy kept of {base.name}", tags=[DEVICE_TAG], **TASK_OPTIONS)
def measure_energies(base: BaseRef, cells: dict[Cell, str]) -> list[CellResult]:
    """The energy kept of a base's weights at the rank of each cell.

    Args:
        base: whose weights.
        cells: with their keys.
    """
    ranks = [one.rank for one in cells if one.rank]
    with device_slot() as device:
        kept: dict[int, Energy] = energies_kept(open_ref(base), ranks, device)
        where = machine(device)
    return [
        CellResult(
            cell=one,
            key=key,
            status="measured",
            energy=kept[one.rank or 0],
            machine=where,
            measured_at=_now(),
        )
        for one, key in cells.items()
    ]
