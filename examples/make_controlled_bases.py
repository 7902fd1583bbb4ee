"""Train small bases of which is known how they are related, to see what a method does with each difference.

    python examples/make_controlled_bases.py --out .cross-lora/controlled

Text is what every machine that runs this project has: the manual and the docstrings of Python's standard
library, and the Devil's Dictionary. `first` is trained on four fifths of it; the others differ from it in one
thing each: `seed` in the seed, `wider` in its width, `deeper` in its layers, `tokens` in its tokenizer. Those
four are trained apart from it. `successor` is `first`, trained on with the rest of the text; `near` is that
after a quarter of its steps, `far` after four times as many at three times its rate. The rows of the tasks of
`make_rows.py` are written beside them. What was interrupted goes on; a base that is there stays.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pydoc_data.topics import topics

import torch
from make_rows import write_rows
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from cross_lora_core.training import Checkpoint, TrainingRecipe, run_steps

DICTIONARY = Path(__file__).parent.parent / "cross_lora_core" / "responses" / "devils-dictionary.txt"
END = "<|end|>"
CONTEXT = 512
WINDOW = 256
"""Tokens of a training window: the strings that methods run bases on are no longer than this, roughly."""


@dataclass(frozen=True)
class Shape:
    """A small Llama.

    Attributes:
        width: of the residual stream, a multiple of 32.
        layers: of it.
        vocabulary: tokens, the end of a text among them.
        seed: of weights and batches.
        tokens_seed: of the texts that the tokenizer is trained on.
    """

    width: int
    layers: int
    vocabulary: int
    seed: int = 0
    tokens_seed: int = 0


def variants(first: Shape) -> dict[str, Shape]:
    """The bases that are trained from nothing, by name."""
    return {
        "first": first,
        "seed": replace(first, seed=1),
        "wider": replace(first, width=_even(first.width * 5 // 4), seed=2),
        "deeper": replace(first, layers=first.layers * 3 // 2, seed=3),
        "tokens": replace(first, vocabulary=first.vocabulary * 3 // 4, seed=4, tokens_seed=1),
    }


SUCCESSORS = {"near": (1 / 12, 1 / 3), "successor": (1 / 3, 1 / 3), "far": (4 / 3, 1.0)}
"""Bases that go on from `first`: their steps and learning rate in units of its own."""


def _even(width: int) -> int:
    return -(-width // 32) * 32


def texts() -> list[str]:
    """Every text, in an order that depends on nothing but their content."""
    found = [*topics.values(), *docstrings(), *DICTIONARY.read_text(encoding="utf-8").split("\n\n")]
    distinct = sorted({text.strip() for text in found if len(text) > 80})
    random.Random(0).shuffle(distinct)  # noqa: S311 - reproducible, not secret
    return distinct


def docstrings() -> Iterator[str]:
    """Of modules, classes and functions of the standard library."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted([*library.glob("*.py"), *library.glob("*/*.py")]):
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(path.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


def make_tokenizer(training: list[str], shape: Shape) -> Tokenizer:
    """Byte-level BPE; one of another seed is trained on half of the texts and has other merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training[:: 1 + shape.tokens_seed], trainer)
    return tokenizer


def stream(tokenizer: Tokenizer, training: list[str]) -> Tensor:
    """Ids of all texts, one after another."""
    end = tokenizer.token_to_id(END)
    return torch.tensor([i for one in tokenizer.encode_batch(training) for i in (*one.ids, end)])


def new_model(shape: Shape) -> LlamaForCausalLM:
    """A model with random weights."""
    torch.manual_seed(shape.seed)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=3 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // 16,
        num_key_value_heads=shape.width // 32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def train_base(
    model: LlamaForCausalLM, ids: Tensor, recipe: TrainingRecipe, checkpoint: Checkpoint
) -> dict[str, float]:
    """Train all weights on windows of the stream.

    Returns:
        What it came to: seconds, and nats per token, mean over the last tenth of the steps.
    """
    device = next(model.parameters()).device

    def loss(step: int) -> Tensor:
        drawn = torch.Generator().manual_seed((recipe.seed << 32) + step)
        starts = torch.randint(len(ids) - WINDOW, (recipe.batch,), generator=drawn)
        windows = torch.stack([ids[start : start + WINDOW] for start in starts.tolist()]).to(device)
        return model(input_ids=windows, labels=windows).loss

    def tell(step: int, value: float) -> None:
        if step % 25 == 0:
            print(f"  step {step}/{recipe.steps} loss {value:.3f}", file=sys.stderr, flush=True)

    run = run_steps(dict(model.named_parameters()), loss, recipe, checkpoint=checkpoint, tell=tell)
    last = run.losses[-max(1, recipe.steps // 10) :]
    print(f"  {run.seconds:.0f} s, loss {sum(last) / len(last):.3f} nats per token", flush=True)
    return {"loss": sum(last) / len(last), "seconds": run.seconds}


def make_base(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    training: list[str],
    recipe: TrainingRecipe,
    told: dict[str, object],
) -> None:
    """Train a base and save it with its tokenizer; the folder appears whole."""
    kept = Checkpoint(folder.parent / ".training" / folder.name, json.dumps(told, sort_keys=True), every=50)
    became = train_base(model, stream(tokenizer, training), recipe, kept)
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    model.to("cpu", torch.float32).save_pretrained(aside)
    tokenizer.save(str(aside / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "model_max_length": CONTEXT}
    (aside / "tokenizer_config.json").write_text(json.dumps(config))
    source = told | {"recipe": asdict(recipe), "python": sys.version.split()[0]} | became
    source |= {"texts": len(training), "characters": sum(map(len, training))}
    (aside / "SOURCE.json").write_text(json.dumps(source, indent=1))
    aside.rename(folder)
    shutil.rmtree(kept.folder, ignore_errors=True)


def make_all(out: Path, first: Shape, recipe: TrainingRecipe, device: str, only: list[str]) -> None:
    """The rows, and every base that is not there yet."""
    write_rows(out / "rows")
    every = texts()
    cut = len(every) * 4 // 5
    for name, shape in variants(first).items():
        if name in only and not (out / name).exists():
            print(name, flush=True)
            own = replace(recipe, seed=shape.seed)
            tokenizer = make_tokenizer(every[:cut], shape)
            make_base(out / name, new_model(shape).to(device), tokenizer, every[:cut], own, asdict(shape))
    for name, (steps, rate) in SUCCESSORS.items():
        if name in only and not (out / name).exists():
            print(name, flush=True)
            own = replace(
                recipe,
                steps=int(recipe.steps * steps) or 1,
                learning_rate=recipe.learning_rate * rate,
                seed=5,
            )
            model = LlamaForCausalLM.from_pretrained(out / "first").to(device)
            tokenizer = Tokenizer.from_file(str(out / "first" / "tokenizer.json"))
            make_base(out / name, model, tokenizer, every[cut:], own, {"from": "first"} | asdict(first))


def main() -> None:
    """Make the bases that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*variants(Shape(32, 2, 512)), *SUCCESSORS]
    parser.add_argument("--out", type=Path, required=True, help="one folder per base is written here")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="names of bases")
    parser.add_argument("--width", type=int, default=128, help="of first, a multiple of 32")
    parser.add_argument("--layers", type=int, default=4, help="of first")
    parser.add_argument("--vocabulary", type=int, default=2048, help="tokens")
    parser.add_argument("--steps", type=int, default=800, help="of training")
    parser.add_argument("--batch", type=int, default=4, help="windows of 256 tokens per step")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args()
    if given.width % 32:
        parser.error(f"expected a width that is a multiple of 32, got {given.width}")
    recipe = TrainingRecipe(
        steps=given.steps,
        batch=given.batch,
        learning_rate=given.learning_rate,
        weight_decay=0.1,
        warmup_steps=max(1, given.steps // 20),
    )
    given.out.mkdir(parents=True, exist_ok=True)
    shape = Shape(given.width, given.layers, given.vocabulary)
    make_all(given.out, shape, recipe, given.device, given.only)


if __name__ == "__main__":
    main()
