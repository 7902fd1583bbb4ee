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
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from make_rows import Row, rows_of
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

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


def encode(tokenizer: PreTrainedTokenizerBase, row: Row) -> tuple[list[int], int]:
    """Token ids of a row, and how many of them are prompt."""
    prompt = tokenizer(row["prompt"]).input_ids
    ids = prompt + tokenizer(row["completion"], add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
    return ids[:128], len(prompt)


def batch_loss(model: PreTrainedModel, encoded: list[tuple[list[int], int]]) -> torch.Tensor:
    """Mean cross entropy of the completions, in nats per token."""
    width = max(len(ids) for ids, _ in encoded)
    ids = torch.zeros(len(encoded), width, dtype=torch.long)
    labels = torch.full((len(encoded), width), -100)
    mask = torch.zeros(len(encoded), width, dtype=torch.long)
    for row, (tokens, prompt) in enumerate(encoded):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
        mask[row, : len(tokens)] = 1
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


def train(recipe: Recipe, base: Path, batch: int = 8) -> PeftModel:
    """Train one adapter with AdamW and a linear warm-up and decay."""
    torch.manual_seed(17)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=recipe.modules,
        use_rslora=recipe.rslora,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    rows = [encode(tokenizer, row) for row in rows_of(recipe.task, recipe.training_rows, held_out=False)]
    parameters = [one for one in adapted.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / 10, (recipe.steps - step) / recipe.steps)
    )
    order = torch.randint(len(rows), (recipe.steps, batch), generator=torch.Generator().manual_seed(5))
    for step, chosen in enumerate(order.tolist()):
        loss = batch_loss(adapted, [rows[index] for index in chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 10 == 0:
            print(
                f"{recipe.task} step {step}/{recipe.steps} loss {loss.item():.3f}",
                file=sys.stderr,
                flush=True,
            )
    return adapted.eval()


@torch.inference_mode()
def held_out_loss(model: PreTrainedModel, base: Path, rows: list[Row]) -> float:
    """Mean over rows of nats per character of the completion (the end token not counted)."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    total = 0.0
    for row in rows:
        ids, prompt = encode(tokenizer, row)
        completion = len(ids) - 1 - prompt
        total += float(batch_loss(model, [(ids[:-1], prompt)])) * completion / len(row["completion"])
    return total / len(rows)


def save(recipe: Recipe, adapted: PeftModel, base: Path, folder: Path, seconds: float) -> None:
    """Write the adapter in float16 with its evaluation file and README."""
    rows = rows_of(recipe.task, recipe.evaluation_rows, held_out=True)
    after = held_out_loss(adapted, base, rows)
    with adapted.disable_adapter():
        before = held_out_loss(adapted, base, rows)
    adapted.peft_config["default"].base_model_name_or_path = base.name
    adapted.half().save_pretrained(folder)
    (folder / "evaluation.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    (folder / "README.md").write_text(card(recipe, base.name, before, after, seconds), encoding="utf-8")
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
    for recipe in (one for one in RECIPES if one.task in arguments.only):
        started = time.monotonic()
        adapted = train(recipe, arguments.base)
        save(recipe, adapted, arguments.base, arguments.out / recipe.task, time.monotonic() - started)


if __name__ == "__main__":
    main()
