"""An experiment file says what it means, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.experiments import (
    NAMED_RECIPES,
    Experiment,
    cells_of,
    chosen_cells,
    load_experiment,
    recipe_of,
)
from cross_lora_core.experiments.cells import Training
from cross_lora_core.models import Role, open_base
from tests.support.experiments import PicoExperiment, write_experiment
from tests.support.pico_models import build_pico


@pytest.fixture
def written(tmp_path: Path) -> PicoExperiment:
    return write_experiment(tmp_path / "experiment", tmp_path)


def load(written: PicoExperiment) -> Experiment:
    return load_experiment(written.file)


def test_the_papers_recipe_is_its_table_4():
    paper = NAMED_RECIPES["paper"]
    training = paper.training
    assert (training.batch, training.learning_rate, training.steps) == (16, 1e-5, 600)
    assert (training.weight_decay, training.grad_norm) == (0.1, 1.0)
    assert (paper.rank, paper.alpha, paper.dropout, paper.roles) == (16, 32, 0.1, ())


def test_a_recipe_is_like_another_and_a_task_has_its_own_steps(written):
    experiment = load(written)
    of = {
        task: recipe_of(experiment, Training(base="old", task=task, recipe="tiny", seed=7))
        for task in ("sentences", "choices")
    }
    assert of["sentences"].training.steps == 3
    assert of["choices"].training.steps == 2
    assert of["choices"].training.seed == 7
    assert of["choices"].training.learning_rate == NAMED_RECIPES["strong"].training.learning_rate
    assert (of["choices"].rank, of["choices"].alpha) == (2, 4)


@pytest.mark.parametrize(("family", "modules"), [("llama", 7), ("phi3", 4), ("gpt2", 4)])
def test_a_recipe_reaches_every_role_of_every_family(tmp_path, family, modules):
    base = open_base(build_pico(family, tmp_path / family))
    targets = NAMED_RECIPES["paper"].lora(base).target_modules
    assert len(targets) == modules
    found = {one.module for one in base.linears() if one.module.endswith(targets)}
    assert found == {one.module for one in base.linears()}


def test_a_recipe_may_name_roles(written, tmp_path):
    written.change("rank = 2", 'rank = 2\nroles = ["q", "v"]')
    recipe = load(written).recipes["tiny"].resolve("tiny")
    assert recipe.roles == (Role.q, Role.v)
    base = open_base(build_pico("llama", tmp_path / "llama"))
    assert recipe.lora(base).target_modules == ("self_attn.q_proj", "self_attn.v_proj")


def test_every_figure_is_a_cell_of_its_own(written):
    ids = [one.id for one in cells_of(load(written))]
    assert len(set(ids)) == len(ids) == 2 * 2 + 2 * 2 + 2 * 3 * 3
    assert "base/new/choices" in ids
    assert "trained/old/choices/tiny/0" in ids
    assert "transferred/old:new/choices/tiny/0/cross-lora@8" in ids
    assert "random/old:new/choices/tiny/0/copy" in ids


def test_ranks_multiply_methods_that_keep_some_singular_vectors_alone(written):
    written.change("ranks = [8]", "ranks = [8, 4]\nenergy_ranks = [4]")
    ids = [one.id for one in cells_of(load(written)) if one.kind in ("transferred", "energy")]
    assert [one for one in ids if "cross-lora" in one and "choices" in one] == [
        f"transferred/old:new/choices/tiny/0/cross-lora@{rank}" for rank in (8, 4)
    ]
    assert sum("interpolate" in one for one in ids) == 2
    assert ids[:2] == ["energy/old/rank@4", "energy/new/rank@4"]


def test_a_pattern_chooses_cells(written):
    chosen = chosen_cells(load(written), "*/old:new/sentences/*/interpolate")
    assert [one.kind for one in chosen] == ["transferred", "zero", "random"]
    with pytest.raises(ConfigurationError, match=r"one of the 26 cells of pico.*'nothing'"):
        chosen_cells(load(written), "nothing")


def test_what_a_cell_is_compared_with(written):
    (cell,) = chosen_cells(load(written), "random/*/sentences/*/cross-lora*")
    assert cell.beside("base").id == "base/new/sentences"
    assert cell.beside("trained").id == "trained/new/sentences/tiny/0"
    assert cell.beside("transferred").id == cell.id.replace("random", "transferred")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('source = "old"', 'source = "older"', "a base of the file (old, new), not 'older'"),
        ("{ tiny = 2 }", "{ huge = 2 }", "a recipe of the file (tiny), not 'huge'"),
        ('like = "strong"', "", "like = one of paper, strong in a recipe of another name (tiny)"),
        ('like = "strong"', 'like = "weak"', "recipes.tiny.like"),
        ('"interpolate", "copy"', '"interpolate", "magic"', "methods.2"),
        ('"interpolate", "copy"', '"copy", "copy"', "each once, not copy twice"),
        ('name = "new"', 'name = "old"', "each once, not old twice"),
        ("confidence = 0.95", "confidence = 2", "got 2"),
        ("confidence = 0.95", "transfer = { rank = 4 }", "rank in ranks, not here"),
        ("confidence = 0.95", "confident = 0.95", "confident of"),
        ("steps = 3", "steps = 0", "recipes.tiny.steps"),
        ('training = "choices.jsonl"', "", "tasks.1.training"),
        ("[recipes.tiny]", "[recipes.tiny", "an experiment file in TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(written, old, new, expected):
    written.change(old, new)
    with pytest.raises(ConfigurationError) as refused:
        load(written)
    assert expected in str(refused.value)
    assert str(written.file) in str(refused.value)


def test_places_are_relative_to_the_file_and_may_name_variables(written, tmp_path, monkeypatch):
    experiment = load(written)
    assert experiment.located("rows/x.jsonl") == str(written.file.parent / "rows" / "x.jsonl")
    assert experiment.located("../old") == str(written.file.parent / "../old")
    assert experiment.located("maker/model") == "maker/model"
    assert experiment.located("s3://bucket/x.jsonl") == "s3://bucket/x.jsonl"
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    assert experiment.located("$SOMEWHERE/x") == experiment.located("${SOMEWHERE}/x") == str(tmp_path / "x")
    assert experiment.located("${SOMEWHERE:-other}/x") == str(tmp_path / "x")
    monkeypatch.delenv("SOMEWHERE")
    assert experiment.located("${SOMEWHERE:-../other}/x") == str(written.file.parent / "../other/x")
    with pytest.raises(ConfigurationError, match="environment variable SOMEWHERE, got not set"):
        experiment.located("$SOMEWHERE/x")


def test_no_file(tmp_path):
    with pytest.raises(ConfigurationError, match="an experiment file in TOML"):
        load_experiment(tmp_path / "none.toml")
