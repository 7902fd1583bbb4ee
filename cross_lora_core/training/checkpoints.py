"""A training that was interrupted, as one safetensors file: parameters, optimiser state, losses so far.

Numbers travel in the header as JSON, so that the file is replaced in one step and is never half of something.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cross_lora_core.errors import ConfigurationError, ObjectCorrupted
from cross_lora_core.training.recipes import TrainingRecipe

__all__ = ["Checkpoint", "TrainingState", "load_state", "save_state"]

_FILE = "checkpoint.safetensors"
_PARAMETER = "parameter"


@dataclass(frozen=True)
class Checkpoint:
    """Where a training is kept, and how often.

    Attributes:
        folder: made if need be; one training each.
        identity: whatever decides the training besides its recipe: model, rows, LoRA. A checkpoint of
            another identity is refused.
        every: steps between two checkpoints.
    """

    folder: Path
    identity: str = ""
    every: int = 25

    @property
    def seconds(self) -> float:
        """Seconds of training that the stored checkpoint took; 0 where there is none."""
        return _read_numbers(self.folder / _FILE)["seconds"] if self.exists else 0.0

    @property
    def exists(self) -> bool:
        """Whether there is something to go on from."""
        return (self.folder / _FILE).exists()


@dataclass(frozen=True, eq=False)
class TrainingState:
    """Where a training stands.

    Attributes:
        losses: of every step done.
        seconds: of training so far.
        optimiser: its state by parameter name and part.
    """

    losses: tuple[float, ...]
    seconds: float
    optimiser: Mapping[str, Mapping[str, Tensor]]


def save_state(
    checkpoint: Checkpoint, recipe: TrainingRecipe, parameters: Mapping[str, Tensor], state: TrainingState
) -> None:
    """Replace the checkpoint."""
    parts = {name: {**state.optimiser.get(name, {}), _PARAMETER: one} for name, one in parameters.items()}
    tensors = {
        f"{name}#{part}": tensor.detach().cpu().contiguous()
        for name, own in parts.items()
        for part, tensor in own.items()
    }
    numbers = {**_identity(checkpoint, recipe), "losses": state.losses, "seconds": state.seconds}
    checkpoint.folder.mkdir(parents=True, exist_ok=True)
    aside = checkpoint.folder / f".{_FILE}-{uuid.uuid4().hex}"
    try:
        save_file(tensors, aside, metadata={"numbers": json.dumps(numbers)})
        aside.replace(checkpoint.folder / _FILE)
    finally:
        aside.unlink(missing_ok=True)


def load_state(
    checkpoint: Checkpoint, recipe: TrainingRecipe, parameters: Mapping[str, Tensor]
) -> TrainingState:
    """Put stored parameters in place; without a checkpoint nothing was done yet.

    Raises:
        ConfigurationError: it is another training's.
        ObjectCorrupted: the file cannot be read.
    """
    path = checkpoint.folder / _FILE
    if not checkpoint.exists:
        return TrainingState((), 0.0, {})
    numbers = _read_numbers(path)
    _check(numbers, _identity(checkpoint, recipe), path)
    stored: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - no mapping
            owner, _, part = name.rpartition("#")
            stored.setdefault(owner, {})[part] = opened.get_tensor(name)
    _check({name: list(one[_PARAMETER].shape) for name, one in stored.items()}, _shapes(parameters), path)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(stored[name].pop(_PARAMETER))
    return TrainingState(tuple(numbers["losses"]), numbers["seconds"], stored)


def _identity(checkpoint: Checkpoint, recipe: TrainingRecipe) -> dict[str, Any]:
    return {"identity": checkpoint.identity, "recipe": asdict(recipe)}


def _shapes(parameters: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(one.shape) for name, one in parameters.items()}


def _check(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    different = sorted(one for one in wanted.keys() | found.keys() if found.get(one) != wanted.get(one))
    different = [one for one in different if one not in ("losses", "seconds")]
    if different:
        first = different[0]
        raise ConfigurationError(
            f"a checkpoint with {first} {wanted.get(first)}",
            str(found.get(first)),
            str(path),
            "Give this training another folder, or delete the checkpoint to begin anew.",
        )


def _read_numbers(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as opened:
            numbers: dict[str, Any] = json.loads(opened.metadata()["numbers"])
            return numbers
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        remedy = "Delete it: the training then begins anew."
        raise ObjectCorrupted("a checkpoint of a training", str(error), str(path), remedy) from error
