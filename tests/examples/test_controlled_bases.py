"""The controlled bases are what their experiment says of them, and are made once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cross_lora_core.evaluation import read_rows
from cross_lora_core.experiments import cells_of, load_experiment
from cross_lora_core.models import open_base
from cross_lora_core.training import TrainingRecipe
from tests.examples.test_examples import EXAMPLES, program

EXPERIMENTS = EXAMPLES / "experiments"
RECIPE = TrainingRecipe(steps=12, batch=2, learning_rate=1e-2, warmup_steps=1)
TEXTS = [
    f"A text of number {n}, which says that {n} is {n % 7} modulo seven, and so on and on."
    for n in range(200)
]


@pytest.fixture(scope="module")
def makers() -> ModuleType:
    sys.path.insert(0, str(EXAMPLES))
    try:
        module = program("make_controlled_bases")
    finally:
        sys.path.remove(str(EXAMPLES))
    module.texts = lambda: TEXTS
    return module


@pytest.fixture(scope="module")
def made(makers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("controlled")
    shape = makers.Shape(64, 2, 400)
    makers.make_all(out, shape, RECIPE, "cpu", [*makers.variants(shape), *makers.SUCCESSORS])
    return out


def test_each_base_differs_from_the_first_in_what_its_name_says(made):
    bases = {path.name: open_base(path) for path in made.iterdir() if path.name not in ("rows", ".training")}
    assert set(bases) == {"first", "seed", "wider", "deeper", "tokens", "near", "successor", "far"}
    first = bases["first"]
    same = {name for name, one in bases.items() if (one.d_model, one.layers) == (first.d_model, first.layers)}
    assert same == {"first", "seed", "tokens", "near", "successor", "far"}
    assert bases["wider"].d_model > first.d_model
    assert bases["deeper"].layers > first.layers
    tokens = {name: (made / name / "tokenizer.json").read_bytes() for name in bases}
    assert {name for name, one in tokens.items() if one != tokens["first"]} == {"tokens"}
    assert len({one.digest for one in bases.values()}) == 8


def test_successors_are_the_first_trained_on_and_drift_away(made):
    weights = {
        name: AutoModelForCausalLM.from_pretrained(made / name)
        .model.layers[1]
        .mlp.up_proj.weight.detach()
        .flatten()
        for name in ("first", "seed", "near", "successor", "far")
    }
    alike = {
        name: float(torch.cosine_similarity(weights["first"], one, dim=0)) for name, one in weights.items()
    }
    assert 0.3 < alike["far"] < alike["successor"] < alike["near"] < 1 - 1e-6
    assert abs(alike["seed"]) < 0.1


def test_a_base_says_what_it_was_made_of_and_writes_text(made):
    told = json.loads((made / "successor" / "SOURCE.json").read_text())
    assert (told["from"], told["recipe"]["steps"], told["texts"]) == ("first", 4, 40)
    tokenizer = AutoTokenizer.from_pretrained(made / "tokens")
    assert tokenizer.decode(tokenizer("A text, été!").input_ids) == "A text, été!"
    assert tokenizer.eos_token_id == 0


def test_what_is_there_is_not_made_again(makers, made, monkeypatch):
    monkeypatch.setattr(makers, "train_base", lambda *_: pytest.fail("was trained again"))
    before = {path: path.stat().st_mtime_ns for path in made.glob("*/model.safetensors")}
    shape = makers.Shape(64, 2, 400)
    makers.make_all(made, shape, RECIPE, "cpu", [*makers.variants(shape), *makers.SUCCESSORS])
    assert {path: path.stat().st_mtime_ns for path in made.glob("*/model.safetensors")} == before


def test_the_experiments_find_bases_and_rows(made, monkeypatch):
    monkeypatch.setenv("CROSS_LORA_CONTROLLED", str(made))
    experiments = [load_experiment(EXPERIMENTS / f"{name}.toml") for name in ("controlled", "drift", "paper")]
    named = {one.name for experiment in experiments for one in experiment.bases}
    assert named == {path.parent.name for path in made.glob("*/config.json")}
    experiment = experiments[0]
    for task in experiment.tasks:
        training, evaluation = (
            read_rows(experiment.located(one.file)) for one in (task.training, task.evaluation)
        )
        assert len(training) == 900
        assert len(evaluation) >= task.evaluation.limit
        assert not {row.prompt for row in training} & {row.prompt for row in evaluation}


def test_texts_are_those_of_this_machine(makers):
    every = program("make_controlled_bases").texts()
    assert len(every) > 1000
    assert len(set(every)) == len(every)
    assert sum(map(len, every)) > 1_000_000
    assert any("Ambrose" not in one and "def" in one for one in every)


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_experiment_files_are_well_formed(file):
    experiment = load_experiment(file)
    assert file.stem == experiment.name
    ids = [one.id for one in cells_of(experiment)]
    assert len(set(ids)) == len(ids)
