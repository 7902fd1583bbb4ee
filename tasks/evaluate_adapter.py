"""What a base does on rows, with an adapter or none: measured once, and kept in the catalog."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from cross_lora_core.adapters import read_adapter
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.evaluation import (
    EvaluationRow,
    Landing,
    LoadedBase,
    dataset_digest,
    environment,
    exact_matches,
    loaded_base,
    row_losses,
)
from cross_lora_core.migration import BaseRef
from cross_lora_core.models import local_base
from cross_lora_core.settings import Settings
from tasks.device_slots import torch_device
from tasks.runtime import open_catalog

__all__ = ["base_in_memory", "measured_losses", "measured_matches"]

_Measure = Callable[[LoadedBase, Sequence[EvaluationRow]], list[float]]
"""A model as it is, to one number per row."""


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
    return _measured("loss", row_losses, base, adapter, rows, settings)


def measured_matches(
    base: BaseRef, adapter: Path | None, rows: Sequence[EvaluationRow], settings: Settings
) -> list[float]:
    """1 for each row whose completion the model writes by itself, else 0; arguments and errors as above."""
    return _measured("exact match", exact_matches, base, adapter, rows, settings)


def _measured(
    name: str,
    measure: _Measure,
    base: BaseRef,
    adapter: Path | None,
    rows: Sequence[EvaluationRow],
    settings: Settings,
) -> list[float]:
    digest = read_adapter(adapter).digest if adapter else ""
    where = environment(torch_device())
    key = (base.digest, digest, dataset_digest(rows), settings.evaluation_dtype, where, name)
    with open_catalog().begin() as work:
        found = work.evaluation(*key)
    if found is not None:
        return found.by_row
    with base_in_memory(base, settings) as loaded, loaded.with_adapter(adapter) as landing:
        _require_all(landing, base, adapter)
        by_row = measure(loaded, rows)
    with open_catalog().begin() as work:
        work.add_evaluation(*key, by_row)
    return by_row


def _require_all(landing: Landing, base: BaseRef, adapter: Path | None) -> None:
    if not landing.complete:
        raise AdapterRefused(
            f"an adapter whose {landing.expected} modules are all in {base.name}",
            f"{landing.landed} that landed, and {landing.untouched} of PEFT's own left without weights",
            str(adapter),
            "Name the base it was trained on, or migrate it to this one first.",
        )
