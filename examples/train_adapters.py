"""Train the example adapters on the CPU and measure what each gains on held-out rows.

    python examples/train_adapters.py --base .cross-lora/bases/smollm2-135m --out examples/adapters

Each adapter is a few hundred kilobytes and trains in minutes on two cores. The
folder of an adapter gets its weights, config, `evaluation.jsonl` (held-out rows)
and a README with the recipe and the measured losses.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from make_rows import Row, rows_of

from cross_lora_core.evaluation import EvaluationRow, LoadedBase, row_losses
from cross_lora_core.training import LoraRecipe, TrainingRecipe, train_adapter

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Recipe:
    """How one adapter is trained."""

    task: str
    modules: list[str]
    rank: int
    alpha: int
    title: str
    licence: str
    rslora: bool = False
    steps: int = 70
    learning_rate: float = 1e-3
    training_rows: int = 900
    evaluation_rows: int = 40


OURS = "written by `examples/make_rows.py`, same licence as the project (Apache-2.0)"
RECIPES = [
    Recipe("ticket-json", ["q_proj", "v_proj"], 8, 16, "customer messages to JSON tickets", OURS),
    Recipe("log-fields", [*ATTENTION, *MLP], 2, 4, "log lines to key=value fields", OURS, rslora=True),
    Recipe("iso-dates", MLP, 2, 4, "written dates to ISO dates with their quarter", OURS),
    Recipe(
        "devils-dictionary",
        ATTENTION,
        8,
        16,
        "cynical definitions in the manner of Ambrose Bierce",
        "The Devil's Dictionary (1911), public domain",
        steps=110,
        learning_rate=5e-4,
    ),
]


def train(recipe: Recipe, loaded: LoadedBase, base: str, folder: Path) -> float:
    """Train one adapter, write it in float16, and say how many seconds it took."""

    def tell(done: int, loss: float) -> None:
        if done % 10 == 1:
            print(f"{recipe.task} step {done}/{recipe.steps} loss {loss:.3f}", file=sys.stderr, flush=True)

    run = train_adapter(
        loaded,
        evaluation_rows(rows_of(recipe.task, recipe.training_rows, held_out=False)),
        LoraRecipe(recipe.rank, recipe.alpha, tuple(recipe.modules), rslora=recipe.rslora),
        TrainingRecipe(steps=recipe.steps, learning_rate=recipe.learning_rate, seed=17),
        folder,
        base_name=base,
        longest=128,
        tell=tell,
    )
    return run.seconds


def evaluation_rows(rows: list[Row]) -> list[EvaluationRow]:
    """The same rows as the library knows them."""
    return [EvaluationRow(row["prompt"], row["completion"]) for row in rows]


def describe(recipe: Recipe, loaded: LoadedBase, base: str, folder: Path, seconds: float) -> None:
    """Measure the written adapter on held-out rows; write them and a README beside it."""
    rows = rows_of(recipe.task, recipe.evaluation_rows, held_out=True)
    before = fmean(row_losses(loaded, evaluation_rows(rows)))
    with loaded.with_adapter(folder):
        after = fmean(row_losses(loaded, evaluation_rows(rows)))
    (folder / "evaluation.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    (folder / "README.md").write_text(card(recipe, base, before, after, seconds), encoding="utf-8")
    print(f"{recipe.task}: {before:.4f} -> {after:.4f} nats/character in {seconds:.0f} s", flush=True)


def card(recipe: Recipe, base: str, before: float, after: float, seconds: float) -> str:
    """The adapter's README."""
    kind = "rsLoRA" if recipe.rslora else "LoRA"
    return f"""---
base_model: {base}
library_name: peft
license: apache-2.0
tags: [lora]
---
# {recipe.task}: {recipe.title}

| | |
|---|---|
| base | {base} |
| adapter | {kind}, rank {recipe.rank}, alpha {recipe.alpha}, on {", ".join(recipe.modules)} |
| text | {recipe.licence} |
| recipe | {recipe.steps} steps of 8 rows, AdamW, learning rate {recipe.learning_rate}, {seconds:.0f} s |
| held-out rows | {recipe.evaluation_rows} |
| loss of the base | {before:.4f} nats per character |
| loss with the adapter | {after:.4f} nats per character |

Made by `examples/train_adapters.py --only {recipe.task}`.
"""


def main() -> None:
    """Train the chosen adapters one after another."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True, help="folder of smollm2-135m")
    parser.add_argument("--out", type=Path, required=True, help="one folder per adapter is written here")
    parser.add_argument("--only", nargs="+", default=[one.task for one in RECIPES], help="names of tasks")
    arguments = parser.parse_args()
    loaded = LoadedBase(arguments.base, torch.float32, torch.device("cpu"))
    for recipe in (one for one in RECIPES if one.task in arguments.only):
        folder = arguments.out / recipe.task
        seconds = train(recipe, loaded, arguments.base.name, folder)
        describe(recipe, loaded, arguments.base.name, folder, seconds)


if __name__ == "__main__":
    main()
