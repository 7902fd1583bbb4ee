"""Train a LoRA on prompts and completions, as an adapter's owner would."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation import EvaluationRow, LoadedBase, row_tokens
from cross_lora_core.migration import content_digest
from cross_lora_core.training.checkpoints import Checkpoint
from cross_lora_core.training.recipes import LoraRecipe, TrainingRecipe
from cross_lora_core.training.steps import Tell, TrainingRun, run_steps
from cross_lora_core.training.weighted import WeightedRow, batch_rows, weighted_losses

__all__ = ["train_adapter"]


def train_adapter(
    loaded: LoadedBase,
    rows: Sequence[EvaluationRow],
    lora: LoraRecipe,
    recipe: TrainingRecipe,
    folder: Path,
    *,
    base_name: str,
    longest: int = 512,
    dtype: torch.dtype = torch.float16,
    checkpoint: Path | None = None,
    budget_seconds: float | None = None,
    tell: Tell | None = None,
) -> TrainingRun:
    """Train a new LoRA and write it as a PEFT folder, which appears whole or not at all.

    The loss is the mean cross entropy of the completions' tokens and the end token after each, in nats; the
    prompt is only read. Of a multiple choice the right completion is learned. The folder is written when
    training is over: all steps are done, or the time is up and there is no checkpoint to go on from. The base
    is afterwards as it was before.

    Args:
        loaded: the base.
        rows: what is learned.
        lora: the LoRA.
        recipe: how it is trained.
        folder: must not exist.
        base_name: what the base is called in `adapter_config.json`.
        longest: tokens read of a row; a longer one loses the beginning of its prompt, then the end of its
            completion.
        dtype: of the tensors written.
        checkpoint: folder from which the same training goes on; None for no checkpoints.
        budget_seconds: time of this call.
        tell: called after every step with the number of steps done and the loss.

    Raises:
        ConfigurationError: the folder exists, there are no rows, the base has none of the modules, or the
            checkpoint is another training's.
        TrainingDiverged: a loss is not finite.
    """
    if folder.exists():
        remedy = "Delete it or name another folder."
        raise ConfigurationError("a folder that does not exist yet", "one that does", str(folder), remedy)
    if not rows:
        raise ConfigurationError("at least one row", "none", "the rows to train on", "Give some rows.")
    encoded = [_encode(loaded, row, min(longest, loaded.limit)) for row in rows]
    kept = Checkpoint(checkpoint, _identity(rows, lora, base_name, longest)) if checkpoint else None
    with loaded.with_new_lora(lora.config(), seed=recipe.seed) as parameters:
        run = run_steps(
            parameters,
            lambda step: weighted_losses(loaded, _batch(encoded, recipe, step)),
            recipe,
            checkpoint=kept,
            budget_seconds=budget_seconds,
            tell=tell,
        )
        if not (run.budget_ended and kept):
            _write(loaded, folder, base_name, dtype)
    return run


def _encode(loaded: LoadedBase, row: EvaluationRow, longest: int) -> WeightedRow:
    prompt, completion = row_tokens(loaded, row)
    end = loaded.tokenizer.eos_token_id
    completion = [*completion, *([] if end is None else [end])][: longest - 1]
    prompt = prompt[-(longest - len(completion)) :]
    return WeightedRow((*prompt, *completion), (*(0.0,) * len(prompt), *(1.0,) * len(completion)))


def _batch(rows: Sequence[WeightedRow], recipe: TrainingRecipe, step: int) -> list[WeightedRow]:
    return [rows[index] for index in batch_rows(len(rows), recipe.batch, recipe.seed, step)]


def _identity(rows: Sequence[EvaluationRow], lora: LoraRecipe, base_name: str, longest: int) -> str:
    texts = [[row.prompt, row.completion] for row in rows]
    return content_digest([texts, asdict(lora), base_name, longest])


def _write(loaded: LoadedBase, folder: Path, base_name: str, dtype: torch.dtype) -> None:
    """Write what is on as PEFT loads it."""
    state = get_peft_model_state_dict(loaded.model, save_embedding_layers=False)
    config = loaded.model.peft_config[loaded.model.active_adapter]
    config.base_model_name_or_path, config.inference_mode = base_name, True
    aside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    aside.mkdir(parents=True)
    try:
        tensors = {name: one.detach().to("cpu", dtype).contiguous() for name, one in state.items()}
        save_file(tensors, aside / "adapter_model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(aside)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
