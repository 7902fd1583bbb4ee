"""Training of LoRA updates on a model in memory, on CPU or GPU; what is interrupted goes on where it stood.

with loaded_base(folder, digest, torch.float32, device) as loaded:
    lora = LoraRecipe(rank=16, alpha=16, target_modules=("q_proj", "v_proj"))
    train_adapter(loaded, rows, lora, TrainingRecipe(steps=200), out, base_name="smollm2-135m")

with loaded.with_new_lora(lora.config(), seed=0) as parameters:     # any other loss
    run_steps(parameters, lambda step: ..., TrainingRecipe(steps=200))
"""

from cross_lora_core.training.checkpoints import Checkpoint
from cross_lora_core.training.recipes import LoraRecipe, TrainingRecipe
from cross_lora_core.training.steps import TrainingRun, run_steps
from cross_lora_core.training.supervised import train_adapter
from cross_lora_core.training.weighted import (
    WeightedRow,
    batch_rows,
    parts_that_fit,
    scores_of,
    targets_of,
    weighted_losses,
)

__all__ = [
    "Checkpoint",
    "LoraRecipe",
    "TrainingRecipe",
    "TrainingRun",
    "WeightedRow",
    "batch_rows",
    "parts_that_fit",
    "run_steps",
    "scores_of",
    "targets_of",
    "train_adapter",
    "weighted_losses",
]
