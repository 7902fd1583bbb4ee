"""The bench that methods are compared on: its scale is right, like is compared with like, figures are kept."""

from __future__ import annotations

import importlib
import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from cross_lora_core.adapters import read_adapter, updates_by_role
from cross_lora_core.experiments import RecipeEntry
from tests.benchmarks import controlled_pairs
from tests.benchmarks.controlled_pairs import ControlledBases, Transfer, compared, measured, summary
from tests.support.pico_models import build_pico

TASK = "say-mat"
PAIRS = [("ours", "theirs"), ("theirs", "ours")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    recipe = RecipeEntry(steps=10, learning_rate=2e-2, warmup_steps=2).resolve("strong")
    monkeypatch.setattr(controlled_pairs, "TRAINING", recipe)
    for seed, name in enumerate(("ours", "theirs")):
        build_pico("llama", tmp_path / "bases" / name, seed=seed)
    rows = [{"prompt": f"the cat {n} sat", "completion": f" on the mat in Paris {n % 10}"} for n in range(80)]
    (tmp_path / "bases" / "rows").mkdir()
    for kind, chosen in (("training", rows[:12]), ("evaluation", rows)):
        file = tmp_path / "bases" / "rows" / f"{TASK}.{kind}.jsonl"
        file.write_text("\n".join(map(json.dumps, chosen)))
    return tmp_path


@pytest.fixture
def bench(folder):
    return ControlledBases(folder / "bases", folder / "adapters", rows=8)


def test_the_scale_runs_from_nothing_to_what_training_on_the_target_gains(bench):
    def trained_on_the_target(pair, _adapter):
        adapter = read_adapter(bench.adapter(pair.names[1], TASK))
        return updates_by_role(adapter, pair.target.base).updates

    (nothing,) = measured(bench, lambda _pair, _adapter: {}, PAIRS[:1], [TASK])
    (everything,) = measured(bench, trained_on_the_target, PAIRS[:1], [TASK])
    assert nothing.gap == 0
    assert everything.gap == pytest.approx(1.0, abs=1e-4)
    assert everything.trained < everything.base


def test_development_rows_are_none_of_those_that_results_are_published_on(bench):
    chosen = bench.rows(TASK)
    assert [one.prompt for one in chosen] == [f"the cat {n} sat" for n in range(60, 68)]


def test_only_the_same_transfers_are_compared():
    found = [
        Transfer("a → b", task, base=2.0, trained=1.0, moved=moved)
        for task, moved in (("x", 1.5), ("y", 1.6))
    ]
    worse = [replace(one, moved=one.moved + 0.1) for one in found]
    assert summary(found)["mean"] == pytest.approx(0.45)
    more = compared(found, worse)
    assert (more["mean"], more["better"], more["of"]) == (pytest.approx(0.1), 2, 2)
    with pytest.raises(ValueError, match="same transfers"):
        compared(found, worse[::-1])


def test_an_ablation_goes_on_where_it_was_interrupted(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(controlled_pairs.__file__).parent))
    bench, runner = (importlib.import_module(name) for name in ("bench_effect_pairs", "variants"))
    quick = controlled_pairs.TRAINING  # the program imports the module by another name
    monkeypatch.setattr(importlib.import_module("controlled_pairs"), "TRAINING", quick)
    few = bench.Variant(strings=(8, 0), shared=8)
    variants = {"default": few, "cooler": replace(few, temperature=0.7)}
    monkeypatch.setattr(runner, "RELATED", (("ours", "theirs"),))
    monkeypatch.setattr(runner, "measured", lambda at, method: measured(at, method, PAIRS, [TASK]))
    asked = Namespace(
        bases=folder / "bases", adapters=folder / "adapters", rows=8, seed=0, only=["default"],
        out=folder / "out.json",
    )  # fmt: skip
    moves = bench.Effect(folder / "strings", 0).updates
    runner.measure_variants(asked, variants, moves)
    before = json.loads(asked.out.read_text())["variants"]
    asked.only = []
    runner.measure_variants(asked, variants, moves)
    after = json.loads(asked.out.read_text())["variants"]
    assert set(before) == {"default"}
    assert set(after) == {"default", "cooler"}
    assert after["default"] == before["default"]
    asked.seed = 1
    with pytest.raises(SystemExit, match="another file"):
        runner.measure_variants(asked, variants, moves)
