"""Train one adapter of an experiment and store it under what decides it; one that is there is found."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from prefect import get_run_logger, task

from cross_lora_core.errors import ObjectExists
from cross_lora_core.evaluation import read_rows
from cross_lora_core.experiments import Cost, Meter, Recipe, RowsRef, Training, trained_prefix
from cross_lora_core.migration import BaseRef
from cross_lora_core.settings import load_settings
from cross_lora_core.storage import MARKER
from cross_lora_core.training import train_adapter
from tasks.bases_in_memory import bases_in_memory
from tasks.device_slots import DEVICE_TAG, device_slot
from tasks.runtime import TASK_OPTIONS, open_ref, open_stored

__all__ = ["TrainedAdapter", "train_on_base"]

_FACTS = "training.json"


@dataclass(frozen=True)
class TrainedAdapter:
    """A trained adapter in the store.

    Attributes:
        location: folder or URL that PEFT loads.
        steps: it was trained for.
        cost: of the training, whenever that was.
    """

    location: str
    steps: int
    cost: Cost


@task(
    name="train",
    task_run_name="train {training.task} on {base.name}, recipe {training.recipe}, seed {training.seed}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def train_on_base(base: BaseRef, training: Training, recipe: Recipe, rows: RowsRef) -> TrainedAdapter:
    """Train, going on from a checkpoint of this machine if there is one, and store adapter and cost.

    Args:
        base: trained on.
        training: which of the experiment's adapters.
        recipe: how.
        rows: trained on.
    """
    store, prefix = open_stored(), trained_prefix(base, training, recipe, rows)
    if store.stat(f"{prefix}/{MARKER}") is None:
        _train_and_store(base, recipe, rows, prefix)
    facts = json.loads(store.get(f"{prefix}/{_FACTS}"))
    return TrainedAdapter(
        store.folder_url(prefix), facts["recipe"]["training"]["steps"], Cost.model_validate(facts["cost"])
    )


def _train_and_store(base: BaseRef, recipe: Recipe, rows: RowsRef, prefix: str) -> None:
    checkpoint = load_settings().home.expanduser().absolute() / "training" / prefix
    store = open_stored()
    with store.workspace() as scratch:
        folder = scratch / "adapter"
        cost, losses = _train(base, recipe, rows, folder, checkpoint)
        facts = {"recipe": recipe.as_dict(), "rows": rows.digest, "losses": losses, "cost": cost.model_dump()}
        (folder / _FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        with suppress(ObjectExists):  # another worker was first; its adapter stands
            store.put_folder(prefix, folder)
    shutil.rmtree(checkpoint, ignore_errors=True)
    get_run_logger().info("loss %.3f → %.3f in %.0f s", losses[0], losses[-1], cost.seconds)


def _train(
    base: BaseRef, recipe: Recipe, rows: RowsRef, folder: Path, checkpoint: Path
) -> tuple[Cost, tuple[float, ...]]:
    with device_slot() as device, bases_in_memory(base, device=device) as (loaded,):
        meter = Meter()
        run = train_adapter(
            loaded,
            read_rows(rows.location),
            recipe.lora(open_ref(base)),
            recipe.training,
            folder,
            base_name=base.name,
            dtype=torch.float16,
            checkpoint=checkpoint,
        )
        cost = meter.read().model_copy(update={"seconds": run.seconds})
    return cost, run.losses
