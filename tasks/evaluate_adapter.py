"""What a base does on rows, with an adapter or none: measured once, and kept in the catalog."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from cross_lora_core.adapters import read_adapter
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.evaluation import (
    BENCHMARK_METRICS,
    EvaluationRow,
    Landing,
    LoadedBase,
    benchmark_hits,
    dataset_digest,
    each_choice,
    environment,
    exact_matches,
    harness,
    loaded_base,
    row_losses,
)
from cross_lora_core.migration import BaseRef
from cross_lora_core.models import local_base
from cross_lora_core.settings import Settings
from tasks.device_slots import torch_device
from tasks.runtime import open_catalog

__all__ = ["base_in_memory", "measured_benchmark", "measured_losses", "measured_matches"]


def base_in_memory(base: BaseRef, settings: Settings) -> AbstractContextManager[LoadedBase]:
    """The base as evaluation sees it, in the precision of the settings, on the device of this task."""
    folder = local_base(base.location, base.digest)
    return loaded_base(folder, base.digest, getattr(torch, settings.evaluation_dtype), torch_device())


def measured_losses(
    base: BaseRef, adapter: Path | None, rows: Sequence[EvaluationRow], settings: Settings
) -> list[float]:
    """Loss of each row, in nats per character, from the catalog if it was measured here or alike before.

    Args:
        base: the model.
        adapter: a folder of this machine; None for the base alone.
        rows: whose completions are scored.
        settings: decide the precision.

    Raises:
        AdapterRefused: not all its modules are in the base, so that something else would be measured.
        ConfigurationError: a completion is longer than the model can read.
    """
    wanted = _Wanted(base, adapter, rows, settings.evaluation_dtype)
    return _measured(wanted, ["loss"], lambda loaded: [row_losses(loaded, rows)], settings)[0]


def measured_matches(
    base: BaseRef, adapter: Path | None, rows: Sequence[EvaluationRow], settings: Settings
) -> list[float]:
    """1 for each row whose completion the model writes by itself, else 0; arguments and errors as above."""
    wanted = _Wanted(base, adapter, rows, settings.evaluation_dtype)
    return _measured(wanted, ["exact match"], lambda loaded: [exact_matches(loaded, rows)], settings)[0]


def measured_benchmark(
    base: BaseRef, adapter: Path | None, benchmark: str, rows: Sequence[EvaluationRow], settings: Settings
) -> dict[str, list[float]]:
    """1 or 0 of each row by the metrics of lm-evaluation-harness; other arguments and errors as above."""
    everything = [*rows, *each_choice(rows)]  # the right choices, and the wrong ones
    wanted = _Wanted(base, adapter, everything, settings.evaluation_dtype)
    names = [f"{harness()} {metric}" for metric in BENCHMARK_METRICS]

    def measure(loaded: LoadedBase) -> list[list[float]]:
        found = benchmark_hits(loaded, benchmark, rows)
        return [found[metric] for metric in BENCHMARK_METRICS]

    return dict(zip(BENCHMARK_METRICS, _measured(wanted, names, measure, settings), strict=True))


@dataclass(frozen=True)
class _Wanted:
    """What is measured; rows are whatever the numbers depend on."""

    base: BaseRef
    adapter: Path | None
    rows: Sequence[EvaluationRow]
    dtype: str

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        digest = read_adapter(self.adapter).digest if self.adapter else ""
        where = environment(torch_device())
        return self.base.digest, digest, dataset_digest(self.rows), self.dtype, where


def _measured(
    wanted: _Wanted,
    names: Sequence[str],
    measure: Callable[[LoadedBase], list[list[float]]],
    settings: Settings,
) -> list[list[float]]:
    """Numbers by row of each named measure, all taken at once where the catalog lacks one."""
    key = wanted.key
    with open_catalog().begin() as work:
        found = [work.evaluation(*key, name) for name in names]
    known = [one.by_row for one in found if one is not None]
    if len(known) == len(names):
        return known
    with base_in_memory(wanted.base, settings) as loaded, loaded.with_adapter(wanted.adapter) as landing:
        _require_all(landing, wanted.base, wanted.adapter)
        taken = measure(loaded)
    with open_catalog().begin() as work:
        for name, by_row in zip(names, taken, strict=True):
            work.add_evaluation(*key, name, by_row)
    return taken


def _require_all(landing: Landing, base: BaseRef, adapter: Path | None) -> None:
    if not landing.complete:
        raise AdapterRefused(
            f"an adapter whose {landing.expected} modules are all in {base.name}",
            f"{landing.landed} that landed, and {landing.untouched} of PEFT's own left without weights",
            str(adapter),
            "Name the base it was trained on, or migrate it to this one first.",
        )
