"""The step loop: AdamW over given parameters, bounded by steps and time, resumable to the bit on a CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from cross_lora_core.errors import TrainingDiverged
from cross_lora_core.training.checkpoints import Checkpoint, TrainingState, load_state, save_state
from cross_lora_core.training.recipes import TrainingRecipe

__all__ = ["BatchLoss", "Tell", "TrainingRun", "run_steps", "seeded"]

BatchLoss = Callable[[int], Tensor | Iterable[Tensor]]
Tell = Callable[[int, float], None]


@dataclass(frozen=True)
class TrainingRun:
    """What a training came to.

    Attributes:
        losses: of every step done, those of earlier calls included, in the unit of the loss.
        seconds: of training, earlier calls included.
        budget_ended: time ended it before its last step.
    """

    losses: tuple[float, ...]
    seconds: float
    budget_ended: bool

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.losses)

    @property
    def first_loss(self) -> float:
        """Loss of the first step, before anything was learned."""
        return self.losses[0]

    @property
    def last_loss(self) -> float:
        """Loss of the last step's batch."""
        return self.losses[-1]


def run_steps(
    parameters: Mapping[str, Tensor],
    batch_loss: BatchLoss,
    recipe: TrainingRecipe,
    *,
    checkpoint: Checkpoint | None = None,
    budget_seconds: float | None = None,
    tell: Tell | None = None,
) -> TrainingRun:
    """Train, from the checkpoint on where there is one, until all steps are done or the time is up.

    Args:
        parameters: what is trained, by name.
        batch_loss: the loss of a step, counted from 0: a scalar, or scalars whose sum it is, each of which
            is propagated back before the next is asked for. It must depend on the step and the parameters
            alone; torch's random numbers do, they are seeded for every step.
        recipe: how.
        checkpoint: where it is kept; None for nowhere.
        budget_seconds: time of this call; at least one step is done. None for no bound.
        tell: called after every step with the number of steps done and the loss.

    Raises:
        TrainingDiverged: a loss or a gradient is not finite. The last checkpoint stands.
        ConfigurationError: the checkpoint is another training's.
        ObjectCorrupted: the checkpoint cannot be read.
    """
    trainer = _Trainer(parameters, recipe, checkpoint)
    started, earlier = time.monotonic(), trainer.seconds
    over = False
    while len(trainer.losses) < recipe.steps and not over:
        trainer.step(batch_loss)
        passed = time.monotonic() - started
        trainer.seconds = earlier + passed
        over = budget_seconds is not None and passed >= budget_seconds
        trainer.keep(now=over)
        if tell:
            tell(len(trainer.losses), trainer.losses[-1])
    return TrainingRun(tuple(trainer.losses), trainer.seconds, len(trainer.losses) < recipe.steps)


class _Trainer:
    """Parameters, their optimiser, and how far they are."""

    def __init__(
        self, parameters: Mapping[str, Tensor], recipe: TrainingRecipe, checkpoint: Checkpoint | None
    ) -> None:
        self._parameters = parameters
        self._recipe = recipe
        self._checkpoint = checkpoint
        self._optimiser = torch.optim.AdamW(
            parameters.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        state = load_state(checkpoint, recipe, parameters) if checkpoint else TrainingState((), 0.0, {})
        self.losses, self.seconds = list(state.losses), state.seconds
        numbered = {n: state.optimiser[name] for n, name in enumerate(parameters) if name in state.optimiser}
        self._optimiser.load_state_dict(self._optimiser.state_dict() | {"state": numbered})

    def step(self, batch_loss: BatchLoss) -> None:
        """Do the next step."""
        step = len(self.losses)
        with seeded(self._recipe.seed, step, self._parameters.values()):
            loss = self._backward(batch_loss(step))
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._recipe.grad_norm)
        self._check("gradient", float(norm))
        for group in self._optimiser.param_groups:
            group["lr"] = self._recipe.rate(step)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self.losses.append(loss)

    def _backward(self, parts: Tensor | Iterable[Tensor]) -> float:
        total = 0.0
        for part in [parts] if isinstance(parts, Tensor) else parts:
            value = float(part.detach())
            self._check("loss", value)
            part.backward()
            total += value
        return total

    def _check(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"a finite {what}",
                str(value),
                f"step {len(self.losses) + 1} of {self._recipe.steps}",
                "Lower the learning rate or lengthen the warm-up; a base in float16 may need float32.",
            )

    def keep(self, *, now: bool) -> None:
        """Replace the checkpoint where it is time to, or all steps are done."""
        done = len(self.losses)
        if self._checkpoint is None or not (
            now or done == self._recipe.steps or done % self._checkpoint.every == 0
        ):
            return
        state = self._optimiser.state
        parts = {name: dict(state[one]) for name, one in self._parameters.items() if one in state}
        save_state(
            self._checkpoint,
            self._recipe,
            self._parameters,
            TrainingState(tuple(self.losses), self.seconds, parts),
        )


@contextmanager
def seeded(seed: int, step: int, tensors: Iterable[Tensor]) -> Iterator[None]:
    """Random numbers that depend on seed and step alone, on the CPU and where the tensors are."""
    devices = {one.device for one in tensors if one.device.type == "cuda"}
    with torch.random.fork_rng(devices=[one.index or 0 for one in devices]):
        torch.manual_seed((seed << 32) + step)
        yield
