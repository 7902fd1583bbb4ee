"""How a LoRA is trained: frozen values that say everything a result depends on besides model and rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from peft import LoraConfig

from cross_lora_core.errors import ConfigurationError

__all__ = ["LoraRecipe", "TrainingRecipe"]


@dataclass(frozen=True)
class TrainingRecipe:
    """Steps of AdamW.

    Attributes:
        steps: optimiser steps.
        batch: rows per step.
        learning_rate: at its highest.
        weight_decay: of AdamW.
        warmup_steps: over which the rate rises linearly from 0.
        schedule: "linear" falls to 0 over all steps, "constant" does not fall.
        grad_norm: bound of the gradient's norm over all parameters.
        seed: of the batches, of dropout and of a new LoRA's factors.
    """

    steps: int = 100
    batch: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 10
    schedule: Literal["linear", "constant"] = "linear"
    grad_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what nothing can be trained with.

        Raises:
            ConfigurationError: names the field.
        """
        for name in ("steps", "batch", "learning_rate", "grad_norm"):
            if not getattr(self, name) > 0:
                raise _refused(f"{name} above 0", getattr(self, name))
        for name in ("weight_decay", "warmup_steps", "seed"):
            if not getattr(self, name) >= 0:
                raise _refused(f"{name} of at least 0", getattr(self, name))
        if self.schedule not in ("linear", "constant"):
            raise _refused("schedule linear or constant", self.schedule)

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0: the lower of `(step + 1) / warmup` and what is left."""
        risen = (step + 1) / self.warmup_steps if self.warmup_steps else 1.0
        left = (self.steps - step) / self.steps if self.schedule == "linear" else 1.0
        return self.learning_rate * min(risen, left, 1.0)


def _refused(expected: str, got: object) -> ConfigurationError:
    return ConfigurationError(expected, str(got), "the training recipe", "Change this field of the recipe.")


@dataclass(frozen=True)
class LoraRecipe:
    """A new LoRA.

    Attributes:
        rank: of every module's update.
        alpha: the update is scaled by alpha / rank, or alpha / sqrt(rank) with rslora.
        target_modules: last parts of module names, or whole paths.
        dropout: share of a LoRA's inputs that is left out in training.
        rslora: as above.
    """

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    dropout: float = 0.0
    rslora: bool = False

    def config(self) -> LoraConfig:
        """The same in PEFT's words."""
        fields: dict[str, Any] = {"lora_alpha": self.alpha, "lora_dropout": self.dropout}
        return LoraConfig(
            r=self.rank,
            target_modules=list(self.target_modules),
            use_rslora=self.rslora,
            task_type="CAUSAL_LM",
            **fields,
        )
