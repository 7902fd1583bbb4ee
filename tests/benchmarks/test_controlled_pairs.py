"""The bench that methods are compared on: its scale is right, and only like is compared with like."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cross_lora_core.adapters import read_adapter, updates_by_role
from cross_lora_core.experiments import RecipeEntry
from tests.benchmarks import controlled_pairs
from tests.benchmarks.controlled_pairs import ControlledBases, Transfer, compared, measured, summary
from tests.support.pico_models import build_pico

TASK = "say-mat"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    recipe = RecipeEntry(steps=10, learning_rate=2e-2, warmup_steps=2).resolve("strong")
    monkeypatch.setattr(controlled_pairs, "TRAINING", recipe)
    for seed, name in enumerate(("ours", "theirs")):
        build_pico("llama", tmp_path / "bases" / name, seed=seed)
    rows = [{"prompt": f"the cat {n} sat", "completion": f" on the mat in Paris {n % 10}"} for n in range(80)]
    (tmp_path / "bases" / "rows").mkdir()
    for kind, chosen in (("training", rows[:12]), ("evaluation", rows)):
        file = tmp_path / "bases" / "rows" / f"{TASK}.{kind}.jsonl"
        file.write_text("\n".join(map(json.dumps, chosen)))
    return ControlledBases(tmp_path / "bases", tmp_path / "adapters", rows=8)


def test_the_scale_runs_from_nothing_to_what_training_on_the_target_gains(bench):
    def trained_on_the_target(pair, _adapter):
        adapter = read_adapter(bench.adapter(pair.names[1], TASK))
        return updates_by_role(adapter, pair.target.base).updates

    pairs = [("ours", "theirs")]
    (nothing,) = measured(bench, lambda _pair, _adapter: {}, pairs, [TASK])
    (everything,) = measured(bench, trained_on_the_target, pairs, [TASK])
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
