"""Distillation of a source with its adapter into a target: what counts, what is learned, what goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cross_lora_core.adapters import verify_adapter, write_adapter
from cross_lora_core.algebra import LoraFactors
from cross_lora_core.fitting import refine
from cross_lora_core.fitting.teacher import LARGEST_WEIGHT, lesson, read_alike
from cross_lora_core.migration import RefineSpec, refine_landings
from cross_lora_core.models import Role
from cross_lora_core.responses import sample_strings, token_strings
from cross_lora_core.training import Checkpoint
from tests.support.fleets import make_adapter, some_updates
from tests.support.pico_models import build_pico
from tests.support.sides import side

SPEC = RefineSpec(steps=25, batch=4, learning_rate=1e-2, warmup_steps=3)


class Pair:
    """A source with an adapter that does something, and a target."""

    def __init__(self, folder: Path, family: str = "llama", **options) -> None:
        self.source = side(build_pico("llama", folder / "source", layers=2))
        self.target = side(build_pico(family, folder / "target", layers=3, seed=4, **options))
        self.adapter = make_adapter(folder / "source", folder / "adapter", strength=0.5)
        self.landings = refine_landings(2, 3, self.target.base.roles)
        with self.source.loaded.with_adapter(self.adapter):
            self.strings = sample_strings(self.source.loaded, 32, tokens=24)

    def refine(self, spec: RefineSpec = SPEC, start=None, **options):
        return refine(
            self.source,
            self.target,
            self.adapter,
            self.strings,
            self.landings,
            start or {},
            4,
            spec,
            **options,
        )


@pytest.fixture
def pair(tmp_path) -> Pair:
    return Pair(tmp_path)


# what counts


def test_a_token_counts_by_how_much_the_adapter_changes_its_prediction(pair):
    loaded = pair.source.loaded
    with loaded.with_adapter(pair.adapter):
        rows = lesson(loaded, pair.target.loaded, pair.strings, "change")
        gains = lesson(loaded, pair.target.loaded, pair.strings, "gain")
        for row in rows[:3]:
            ids = torch.tensor([row.ids])
            with torch.no_grad():
                adapted = loaded.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
                with loaded.model.disable_adapter():
                    plain = loaded.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            expected = (adapted.exp() * (adapted - plain)).sum(-1).clamp(0, LARGEST_WEIGHT)
            torch.testing.assert_close(torch.tensor(row.weights[1:]), expected, rtol=1e-3, atol=1e-5)
            (gain,) = (one for one in gains if one.ids == row.ids)
            own = (adapted - plain).gather(1, ids[0, 1:, None])[:, 0].clamp(0, LARGEST_WEIGHT)
            torch.testing.assert_close(torch.tensor(gain.weights[1:]), own, rtol=1e-3, atol=1e-5)
    assert [len(one.ids) for one in rows] == [
        len(pair.target.loaded.tokenizer(x).input_ids) for x in pair.strings
    ]


def test_without_weights_all_tokens_count_alike(pair):
    with pair.source.loaded.with_adapter(pair.adapter):
        rows = lesson(pair.source.loaded, pair.target.loaded, pair.strings, "none")
    assert {weight for row in rows for weight in row.weights} == {1.0}


def test_weights_follow_the_characters_to_another_tokenizer(tmp_path):
    pair = Pair(tmp_path, "llama", tokenizer="sentencepiece-like")
    text = ["the cat sat on the mat", "Paris is the city of dog"]
    assert not read_alike(pair.source.loaded, pair.target.loaded, text)
    with pair.source.loaded.with_adapter(pair.adapter):
        ours = lesson(pair.source.loaded, pair.source.loaded, text, "change")
        theirs = lesson(pair.source.loaded, pair.target.loaded, text, "change")
    for text_, mine, other in zip(text, ours, theirs, strict=True):
        assert list(other.ids) == pair.target.loaded.tokenizer(text_).input_ids
        assert sum(other.weights) == pytest.approx(sum(mine.weights), rel=1e-5)


def test_an_adapter_that_changes_nothing_teaches_nothing(pair, tmp_path):
    pair.adapter = make_adapter(Path(pair.source.base.location), tmp_path / "idle", strength=0.0)
    start = some_updates(pair.target.base, (Role.down,), rank=4)
    fit = pair.refine(start=start)
    assert (fit.run.steps, fit.strings) == (0, 0)
    for key, update in start.items():
        found = fit.projected[key].update
        torch.testing.assert_close(found.lora_B @ found.lora_A, product(update))


# what is learned


def product(update: LoraFactors) -> torch.Tensor:
    return update.scaling * update.lora_B @ update.lora_A


def test_where_tokens_agree_the_whole_distribution_is_learned(pair):
    before = {name: one.clone() for name, one in pair.target.loaded.model.state_dict().items()}
    fit = pair.refine()
    assert fit.loss == "divergence"
    assert fit.run.steps == 25
    assert fit.after < 0.8 * fit.before
    assert set(fit.projected) == {(layer, role) for layer in range(3) for role in pair.target.base.roles}
    assert all(one.measure.norm > 0 for one in fit.projected.values())
    after = pair.target.loaded.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not pair.target.loaded.spoiled
    assert not pair.source.loaded.spoiled


def test_where_tokens_differ_what_the_teacher_wrote_is_learned(tmp_path):
    pair = Pair(tmp_path, "llama", tokenizer="sentencepiece-like")
    fit = pair.refine(replace(SPEC, steps=40))
    assert fit.loss == "cross-entropy"
    assert fit.after < 0.95 * fit.before


def test_it_goes_on_from_what_was_fitted(pair):
    start = some_updates(pair.target.base, (Role.down, Role.q), rank=4)
    fit = pair.refine(replace(SPEC, steps=1, learning_rate=1e-12), start)
    for key, one in fit.projected.items():
        expected = product(start[key]) if key in start else torch.zeros_like(product(one.update))
        torch.testing.assert_close(product(one.update), expected, rtol=1e-4, atol=1e-6)
    assert fit.before != pytest.approx(pair.refine(replace(SPEC, steps=1)).before)


def test_a_zero_to_begin_with_can_still_learn(pair):
    zeros = {
        key: LoraFactors(torch.zeros_like(one.lora_A), torch.zeros_like(one.lora_B))
        for key, one in some_updates(pair.target.base, (Role.down,), rank=4).items()
    }
    fit = pair.refine(replace(SPEC, steps=3), zeros)
    assert all(fit.projected[key].measure.norm > 0 for key in zeros)


@pytest.mark.parametrize("family", ["phi3", "gpt2", "gpt_neox", "gemma3_text"])
def test_fused_and_transposed_projections_land_whole(tmp_path, family):
    pair = Pair(tmp_path, family)
    start = some_updates(pair.target.base, (Role.down,), rank=2)
    fit = pair.refine(replace(SPEC, steps=4), start)
    updates = {key: one.update for key, one in fit.projected.items()}
    written = write_adapter(tmp_path / "out", pair.target.base, updates, rank=4, dtype=torch.float32)
    assert written.rank == 8
    report = verify_adapter(tmp_path / "out", pair.target.base, written.modules)
    assert report.problems == ()
    with pair.target.loaded.with_adapter(tmp_path / "out") as landing:
        assert landing.complete


# what goes on


def test_interrupted_and_resumed_is_the_same(pair, tmp_path):
    class Killed(Exception):
        pass

    def kill(done: int, _loss: float) -> None:
        if done == 7:
            raise Killed

    spec = replace(SPEC, steps=12)
    start = some_updates(pair.target.base, (Role.down,), rank=4)
    whole = pair.refine(spec, start)
    kept = Checkpoint(tmp_path / "work", "mine", every=5)
    with pytest.raises(Killed):
        pair.refine(spec, start, checkpoint=kept, tell=kill)
    steps: list[int] = []
    resumed = pair.refine(spec, start, checkpoint=kept, tell=lambda done, _loss: steps.append(done))
    assert steps == list(range(6, 13))
    assert resumed.run.losses == whole.run.losses
    assert (resumed.before, resumed.after) == (whole.before, whole.after)
    for key, one in whole.projected.items():
        assert torch.equal(one.update.lora_A, resumed.projected[key].update.lora_A)
        assert torch.equal(one.update.lora_B, resumed.projected[key].update.lora_B)


def test_its_time_is_that_of_all_calls_together(pair, tmp_path):
    kept = Checkpoint(tmp_path / "work", "mine", every=1)
    spec = replace(SPEC, seconds=1e-6)
    assert pair.refine(spec, checkpoint=kept).run.steps == 1
    run = pair.refine(spec, checkpoint=kept).run
    assert (run.steps, run.budget_ended) == (2, True)
    told = pair.refine(replace(spec, seconds=900.0), checkpoint=Checkpoint(tmp_path / "other")).as_dict()
    assert (told["steps"], told["budget_ended"]) == (25, False)


def test_strings_read_alike_only_with_the_same_tokens(pair, tmp_path):
    other = side(build_pico("llama", tmp_path / "other", tokenizer="sentencepiece-like"))
    strings = token_strings(pair.source.base, pair.target.base, 4)
    assert read_alike(pair.source.loaded, pair.target.loaded, strings)
    assert not read_alike(pair.source.loaded, other.loaded, strings)
