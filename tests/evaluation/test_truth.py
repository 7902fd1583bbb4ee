"""Real (small) models, adapters of known truth, fresh rows every trial: which verdict is reached how often.

A tiny base is trained, and adapters with real gain on it. Then each trial measures one adapter on rows that
no other trial of its kind has, beside its random control, and has it judged alone (`decide`) and among others (`choose`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from cross_lora_core.adapters import read_adapter, updates_by_role, write_adapter
from cross_lora_core.algebra import LoraFactors, random_like, zero
from cross_lora_core.evaluation import (
    PROMOTABLE,
    EvaluationRow,
    Evidence,
    Losses,
    check_function,
    choose,
    decide,
    loaded_base,
    row_losses,
)
from cross_lora_core.models import BaseModel, Role, open_base
from tasks.write_controls import random_control, write_control, zero_control
from tests.support.pico_models import WORDS, build_pico
from tests.support.planted import project, rewritten

CPU = torch.device("cpu")
LAYERS, ROWS, SLICES = 4, 12, 5
HEADS = {"num_key_value_heads": 4, "intermediate_size": 48}
Updates = dict[tuple[int, Role], LoraFactors]

TASKS = (" on the mat in {a} {n}", " and the {b} of {a} !")
"""What an adapter learns to say after `the {a} {n} sat`, each in a way of its own."""


def words(drawn: random.Random, count: int) -> str:
    return " ".join(drawn.choice(WORDS) for _ in range(count))


def rows(task: str, count: int, seed: int) -> list[EvaluationRow]:
    drawn = random.Random(seed)
    found = {}
    while len(found) < count:
        a, b, n = drawn.choice(WORDS), drawn.choice(WORDS), drawn.randrange(10_000)
        row = EvaluationRow(f"the {a} {n} sat", task.format(a=a, b=b, n=n))
        found[row.prompt] = row
    return list(found.values())


def train(model: torch.nn.Module, folder: Path, texts: Iterator[list[str]], steps: int, rate: float) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=rate)
    for _, batch in zip(range(steps), texts, strict=False):
        encoded = [tokenizer(text).input_ids for text in batch]
        width = max(map(len, encoded))
        ids = torch.tensor([one + [0] * (width - len(one)) for one in encoded])
        labels = torch.tensor([one + [-100] * (width - len(one)) for one in encoded])
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def general_texts(seed: int) -> Iterator[list[str]]:
    drawn = random.Random(seed)
    while True:
        yield [f"{words(drawn, 6)} {drawn.randrange(10_000)} {words(drawn, 3)}" for _ in range(8)]


def task_texts(task: str) -> Iterator[list[str]]:
    for seed in range(10_000, 20_000):
        yield [row.prompt + row.completion for row in rows(task, 8, seed)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_pico("llama", tmp_path_factory.mktemp("truth") / "base", layers=LAYERS, overrides=HEADS)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    train(model, folder, general_texts(0), steps=250, rate=3e-3)
    model.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Trained:
    """An adapter with real gain, its updates, and rows it has not seen: a slice for every trial."""

    folder: Path
    updates: Updates
    rows: list[EvaluationRow]


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Trained]:
    root, found = tmp_path_factory.mktemp("trained"), []
    for number, task in enumerate(TASKS):
        torch.manual_seed(number)
        config = LoraConfig(
            r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM"
        )
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        train(model, base, task_texts(task), steps=80, rate=1e-2)
        model.save_pretrained(root / str(number))
        updates = updates_by_role(read_adapter(root / str(number)), open_base(base)).updates
        found.append(Trained(root / str(number), updates, rows(task, 25 * ROWS, number)))
    return found


class Bench:
    """Losses of adapters on all rows of a task, each measured once."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self._count = scratch, 0

    def measure(self, base: Path, adapter: Path | None, lines: list[EvaluationRow]) -> list[float]:
        with loaded_base(base, str(base), torch.float32, CPU) as loaded, loaded.with_adapter(adapter):
            return row_losses(loaded, lines)

    def candidate(
        self, source: Path, target: Path, one: Trained, updates: Updates, *, copied: bool = False
    ) -> Candidate:
        """An adapter written as the flow writes it, with its controls, measured on every row of its task."""
        self._count += 1
        folder = self._scratch / str(self._count)
        folder.mkdir()
        opened = open_base(target)
        write_adapter(folder / "migrated", opened, updates)
        for name, control in (("random", random_control(self._count)), ("zero", zero_control)):
            write_control(folder / "migrated", opened, torch.float16, folder / name, control)
        with loaded_base(target, str(target), torch.float32, CPU) as loaded:
            function = check_function(loaded, folder / "migrated")
        on_target = {
            name: self.measure(target, folder / name, one.rows) for name in ("migrated", "random", "zero")
        }
        losses = Losses(
            target=self.measure(target, None, one.rows),
            source=self.measure(source, None, one.rows),
            source_adapter=self.measure(source, one.folder, one.rows),
            **on_target,
        )
        return Candidate(Evidence((), function, losses, copied, source == target))


@dataclass(frozen=True)
class Candidate:
    """Evidence on all rows; a trial sees a slice of it."""

    whole: Evidence

    def trial(self, number: int) -> Evidence:
        seen = slice(number * ROWS, (number + 1) * ROWS)
        losses = self.whole.losses
        assert losses is not None
        part = Losses(**{name: list(values)[seen] for name, values in vars(losses).items()})
        return Evidence(
            self.whole.problems, self.whole.function, part, self.whole.copied, self.whole.same_base
        )

    @property
    def truly_helps(self) -> bool:
        """On all rows together, by any amount."""
        losses = self.whole.losses
        assert losses is not None
        return sum(losses.target) > sum(losses.migrated)


@dataclass
class Confusion:
    """Verdicts by known truth, judged alone and among others."""

    alone: dict[str, Counter[str]] = field(default_factory=dict)
    chosen: dict[str, Counter[str]] = field(default_factory=dict)

    def note(self, kind: str, alone: str, chosen: str) -> None:
        self.alone.setdefault(kind, Counter())[alone] += 1
        self.chosen.setdefault(kind, Counter())[chosen] += 1

    def table(self) -> str:
        verdicts = sorted(
            {name for found in (self.alone, self.chosen) for row in found.values() for name in row}
        )
        head = f"{'truth':15} {'judged':10}" + "".join(f"{name:>18}" for name in verdicts)
        lines = [
            f"{kind:15} {how:10}" + "".join(f"{rows[kind][name]:18}" for name in verdicts)
            for kind in self.alone
            for how, rows in (("alone", self.alone), ("by auto", self.chosen))
        ]
        return "\n".join([head, *lines])


def bad_updates(kind: str, updates: Updates, seed: int) -> Updates:
    drawn = random.Random(seed)
    if kind == "random":
        return {
            key: random_like(one, one.d_out, one.d_in, seed * 1000 + number)
            for number, (key, one) in enumerate(updates.items())
        }
    if kind == "sign-flipped":
        scale = 0.25 * (1 + seed)
        return {
            key: LoraFactors(one.lora_A, -one.lora_B, one.scaling * scale) for key, one in updates.items()
        }
    if kind == "empty":
        return {key: zero(one, one.d_out, one.d_in) for key, one in updates.items()}
    order = list(range(LAYERS))
    while any(place == layer for place, layer in enumerate(order)):
        drawn.shuffle(order)
    return {(order[layer], role): one for (layer, role), one in updates.items()}


def planted(base: BaseModel, target: BaseModel, updates: Updates) -> Updates:
    return {key: one.update for key, one in project(base, target, updates).items()}


BAD = ("random", "sign-flipped", "empty", "shuffled")
OTHER = {"random": "sign-flipped", "sign-flipped": "random", "shuffled": "random"}


def test_no_harmful_or_empty_adapter_is_called_migrated(base, trained, tmp_path, capsys):
    """300 trials: 12 fresh rows each, 2 tasks, 5 adapters a kind; every verdict alone and as `auto` chooses."""
    bench, confusion, opened = Bench(tmp_path), Confusion(), open_base(base)
    for number, one in enumerate(trained):
        identity = bench.candidate(base, base, one, one.updates, copied=True)
        for variant in range(5):
            bad = {
                kind: bench.candidate(base, base, one, bad_updates(kind, one.updates, variant))
                for kind in BAD
            }
            other = rewritten(base, tmp_path / f"rewritten-{number}-{variant}", seed=number * 10 + variant)
            moved = bench.candidate(base, other, one, planted(opened, open_base(other), one.updates))
            wrong = bench.candidate(base, other, one, one.updates, copied=True)
            for part in range(SLICES):
                trial = variant * SLICES + part
                judge_good(
                    confusion, "identity hop", {"copy": identity, "cross-lora": bad["random"]}, "copy", trial
                )
                judge_good(
                    confusion, "planted basis", {"copy": wrong, "cross-lora": moved}, "cross-lora", trial
                )
                for kind, candidate in bad.items():
                    others = {} if kind == "empty" else {"probe": bad[OTHER[kind]]}
                    judge_bad(confusion, kind, {"cross-lora": candidate, **others}, trial)
    with capsys.disabled():
        print(f"\n{confusion.table()}")
    assert sum(sum(row.values()) for row in confusion.alone.values()) == 300


def judge_good(confusion: Confusion, kind: str, among: dict[str, Candidate], good: str, trial: int) -> None:
    alone = decide(among[good].trial(trial), seed=trial)
    choice = choose({name: one.trial(trial) for name, one in among.items()}, seed=trial)
    confusion.note(kind, alone.verdict, choice.decision.verdict)
    assert alone.verdict in PROMOTABLE, (kind, trial, alone.reason)
    assert choice.decision.verdict in PROMOTABLE, (kind, trial, choice.decision.reason)
    assert choice.name == good


def judge_bad(confusion: Confusion, kind: str, among: dict[str, Candidate], trial: int) -> None:
    first = next(iter(among.values()))
    alone = decide(first.trial(trial), seed=trial)
    choice = choose({name: one.trial(trial) for name, one in among.items()}, seed=trial)
    confusion.note(kind, alone.verdict, choice.decision.verdict)
    for name, verdict in (("cross-lora", alone.verdict), (choice.name, choice.decision.verdict)):
        if verdict in PROMOTABLE:  # only a shuffled adapter may do some good, and then it has to on all rows
            assert kind == "shuffled", (kind, trial, alone.reason)
            assert among[name].truly_helps, (trial, alone.reason)
    if kind == "empty":
        assert (alone.verdict, choice.decision.verdict) == ("no_effect", "no_effect")
    if choice.usable and kind != "empty":
        assert not (choice.decision.improvement.high < 0)
