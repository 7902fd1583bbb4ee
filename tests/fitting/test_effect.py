"""The effect of an adapter, carried over without its matrices."""

from __future__ import annotations

import pytest
import torch

from cross_lora_core.fitting import EffectOptions, fit_effect, stream_moments
from cross_lora_core.migration import effect_landings
from cross_lora_core.models import Role
from cross_lora_core.responses import pair_batches, token_strings, with_updates
from tests.support.fleets import make_adapter
from tests.support.pico_models import PICO_FAMILIES, build_pico
from tests.support.sides import side, stream_at


def fitted(source, target, adapter, strings, landings, below=None, rank=4):
    shared = token_strings(source.base, target.base, 8, tokens=30, seed=9)
    moments = stream_moments(source, target, shared, landings)
    options = EffectOptions(rank=rank, map_ridge=0.01)
    return fit_effect(source, target, adapter, strings, landings, moments, below or {}, options)


def test_on_its_own_base_an_adapter_of_the_same_modules_keeps_its_effect(tmp_path):
    folder = build_pico("llama", tmp_path / "base", layers=3)
    adapter = make_adapter(folder, tmp_path / "adapter", strength=0.2, target_modules=["down_proj"])
    source, target = side(folder), side(folder)
    strings = token_strings(source.base, target.base, 60, tokens=40)
    landings = effect_landings(3, 3)
    fit = fitted(source, target, adapter, strings, landings)
    assert min(one.measure.explained for one in fit.projected.values()) > 0.9
    fresh = [
        one.target
        for one in pair_batches(
            source.loaded, target.loaded, token_strings(source.base, target.base, 20, tokens=40, seed=5)
        )
    ]
    plain = stream_at(source, fresh, source.base.layers)
    with source.loaded.with_adapter(adapter):
        wanted = stream_at(source, fresh, source.base.layers) - plain
    updates = {target.base.linear(*key).module: one.update for key, one in fit.projected.items()}
    with with_updates(target.loaded, updates):
        got = stream_at(target, fresh, target.base.layers) - plain
    assert (got - wanted).norm() < 0.3 * wanted.norm()


def test_a_group_continues_where_the_one_below_ended(tmp_path):
    ours, theirs = (
        build_pico("llama", tmp_path / "a", layers=2),
        build_pico("qwen2", tmp_path / "b", layers=3),
    )
    adapter = make_adapter(ours, tmp_path / "adapter", strength=0.2)
    source, target = side(ours), side(theirs)
    strings = token_strings(source.base, target.base, 24, tokens=30)
    landings = effect_landings(2, 3)
    whole = fitted(source, target, adapter, strings, landings).projected
    first = fitted(source, target, adapter, strings, landings[:2]).projected
    below = {key: one.update for key, one in first.items()}
    rest = fitted(source, target, adapter, strings, landings[2:], below).projected
    assert whole.keys() == first.keys() | rest.keys()
    for key, one in (first | rest).items():
        product = one.update.lora_B @ one.update.lora_A
        torch.testing.assert_close(product, whole[key].update.lora_B @ whole[key].update.lora_A)


@pytest.mark.parametrize("family", PICO_FAMILIES)
def test_every_family_can_be_a_target(family, tmp_path):
    ours, theirs = build_pico("llama", tmp_path / "a"), build_pico(family, tmp_path / "b", seed=4, width=64)
    adapter = make_adapter(ours, tmp_path / "adapter", strength=0.3)
    source, target = side(ours), side(theirs)
    strings = token_strings(source.base, target.base, 16, tokens=30)
    fit = fitted(source, target, adapter, strings, effect_landings(2, 2))
    assert fit.positions > 100
    for (layer, role), one in fit.projected.items():
        spec = target.base.linear(layer, role)
        assert (one.update.d_out, one.update.d_in) == (spec.d_out, spec.d_in)
        assert torch.isfinite(one.update.lora_B).all() and 0 <= one.measure.explained <= 1


def test_an_empty_adapter_gives_an_empty_update(tmp_path):
    folder = build_pico("llama", tmp_path / "base")
    adapter = make_adapter(folder, tmp_path / "adapter", strength=0.0)
    source, target = side(folder), side(folder)
    strings = token_strings(source.base, target.base, 12, tokens=30)
    fit = fitted(source, target, adapter, strings, effect_landings(2, 2))
    assert all(not one.update.lora_B.any() for one in fit.projected.values())


def test_landings_reach_from_the_first_layer_to_the_last():
    landings = effect_landings(30, 18)
    assert [one.target_layer for one in landings] == list(range(18))
    assert landings[-1].source_layer == 29
    assert {one.role for one in landings} == {Role.down}
    assert [one.source_layer for one in effect_landings(4, 8)] == [0, 0, 1, 1, 1, 2, 3, 3]
