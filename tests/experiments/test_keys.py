"""A cell is measured anew exactly when something that its figure depends on changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cross_lora_core.experiments import (
    Cell,
    Experiment,
    RowsRef,
    TaskRows,
    Training,
    cell_key,
    chosen_cells,
    load_experiment,
    recipe_of,
    request_for,
    trained_prefix,
)
from cross_lora_core.migration import BaseRef, Method
from cross_lora_core.settings import Settings
from cross_lora_core.storage import check_key
from tests.support.experiments import PicoExperiment, write_experiment

BASES = {
    name: BaseRef(name, f"/bases/{name}", f"digest of {name}", "tokens", None, "llama", 2, 32)
    for name in ("old", "new")
}
ROWS = {
    name: TaskRows(RowsRef(f"train {name}", "/t"), RowsRef(f"test {name}", "/e"))
    for name in ("sentences", "choices")
}
SETTINGS = Settings()


@pytest.fixture
def written(tmp_path: Path) -> PicoExperiment:
    return write_experiment(tmp_path, tmp_path)


def cell_of(experiment: Experiment, pattern: str) -> Cell:
    (found,) = chosen_cells(experiment, pattern)
    return found


def keys(experiment: Experiment, **changed: Any) -> dict[str, str]:
    given = {"bases": BASES, "rows": ROWS, "settings": SETTINGS, **changed}
    return {one.id: cell_key(experiment, one, **given) for one in chosen_cells(experiment, "*")}


def kinds_that_changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name.split("/")[0] for name, key in before.items() if after[name] != key}


EVERYTHING = {"base", "trained", "transferred", "zero", "random"}
MOVED = {"transferred", "zero", "random"}


def test_no_two_cells_have_one_key_and_a_key_stays(written):
    found = keys(load_experiment(written.file))
    assert len(set(found.values())) == len(found)
    assert found == keys(load_experiment(written.file))


def test_what_a_change_touches(written):
    experiment = load_experiment(written.file)
    before = keys(experiment)
    other_old = BASES | {"old": replace(BASES["old"], digest="another")}
    other_rows = ROWS | {"choices": replace(ROWS["choices"], evaluation=RowsRef("another", "/e"))}
    other_training = ROWS | {"choices": replace(ROWS["choices"], training=RowsRef("another", "/t"))}
    moved = ROWS | {"choices": replace(ROWS["choices"], training=RowsRef("train choices", "/elsewhere"))}
    assert kinds_that_changed(before, keys(experiment, bases=other_old)) == EVERYTHING
    assert kinds_that_changed(before, keys(experiment, rows=other_rows)) == EVERYTHING
    assert kinds_that_changed(before, keys(experiment, rows=other_training)) == EVERYTHING - {"base"}
    assert keys(experiment, rows=moved) == before
    assert not [
        name
        for name, key in keys(experiment, rows=other_rows).items()
        if "sentences" in name and key != before[name]
    ]


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("steps = 3", "steps = 5", EVERYTHING - {"base"}),
        ("confidence = 0.95", "confidence = 0.9", EVERYTHING),
        ("confidence = 0.95", 'confidence = 0.95\ntransfer = { output_dtype = "float32" }', MOVED),
        ("generate = true", "generate = false", EVERYTHING),
        ('target = "new"', 'target = "new"\nrelated = true', set()),
    ],
)
def test_what_a_change_of_the_file_touches(written, old, new, changes):
    before = keys(load_experiment(written.file))
    written.change(old, new)
    assert kinds_that_changed(before, keys(load_experiment(written.file))) == changes


@pytest.mark.parametrize("method", ["auto", "refine"])
def test_a_method_that_others_rest_on_measures_them_anew(written, monkeypatch, method):
    written.change('methods = ["cross-lora"', f'methods = ["{method}", "cross-lora"')
    experiment = load_experiment(written.file)
    before = keys(experiment)
    monkeypatch.setattr("cross_lora_core.migration.spec.EFFECT_VERSION", 99)
    changed = {name for name, key in keys(experiment).items() if key != before[name]}
    assert changed == {name for name in before if f"/{method}" in name}


def test_an_environment_of_other_precision_or_seed_measures_anew(written):
    experiment = load_experiment(written.file)
    before = keys(experiment)
    for other in (Settings(seed=1), Settings(evaluation_dtype="bfloat16")):
        assert kinds_that_changed(before, keys(experiment, settings=other)) == EVERYTHING
    assert keys(experiment, settings=Settings(workers=7)) == before


def test_a_migration_is_asked_for_as_the_cell_says(written):
    written.change("confidence = 0.95", "transfer = { refine_steps = 9, output_rank = 32 }")
    experiment = load_experiment(written.file)
    cell = cell_of(experiment, "transferred/*/choices/*/cross-lora@8")
    request = request_for(
        experiment, cell, BASES["old"], BASES["new"], "/adapter", ROWS["choices"].evaluation
    )
    assert (request.source, request.targets, request.adapters) == ("/bases/old", ["/bases/new"], ["/adapter"])
    assert (request.method, request.rank, request.evaluation) == (Method.CROSS_LORA, 8, "/e")
    assert (request.refine_steps, request.output_rank) == (9, 32)
    assert request.requested_by == "experiment pico"


def test_a_trained_adapter_lies_under_everything_that_decides_it(written):
    experiment = load_experiment(written.file)
    training = Training(base="old", task="choices", recipe="tiny", seed=0)
    recipe = recipe_of(experiment, training)
    prefix = trained_prefix(BASES["old"], training, recipe, ROWS["choices"].training)
    others = [
        trained_prefix(replace(BASES["old"], tokenizer="other"), training, recipe, ROWS["choices"].training),
        trained_prefix(BASES["old"], training, replace(recipe, rank=5), ROWS["choices"].training),
        trained_prefix(BASES["old"], training, recipe, ROWS["sentences"].training),
        trained_prefix(
            BASES["old"],
            training,
            recipe_of(experiment, training.model_copy(update={"seed": 1})),
            ROWS["choices"].training,
        ),
    ]
    assert len({prefix, *others}) == 5
    assert check_key(prefix.replace(" ", "-")).split("/")[-1].startswith("choices-tiny-0-")
