"""Response maps on real (pico) models: the planted answer, the identity, every family, held-out choice, strength."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cross_lora_core.adapters import read_adapter, updates_by_role, write_adapter
from cross_lora_core.algebra import LoraFactors, frobenius_norm
from cross_lora_core.fitting import PairMoments, fit_maps, pair_moments
from cross_lora_core.migration import (
    GroupFile,
    Landing,
    MapFit,
    ModuleMaps,
    carry,
    read_maps,
    write_maps,
)
from cross_lora_core.migration.maps import STRONGEST
from cross_lora_core.models import Role, map_layers, open_base
from cross_lora_core.responses import text_strings
from tests.migration.test_layers import logits, rewritten
from tests.support.fleets import make_adapter
from tests.support.oracle import dense
from tests.support.pico_models import PICO_FAMILIES, build_pico
from tests.support.sides import side
from tests.support.tolerances import assert_close

CPU = torch.device("cpu")
TEXTS = text_strings(18)


def fitted(source_folder, target_folder, strings=TEXTS):
    """Landings and maps of every role both bases have."""
    sides = side(source_folder), side(target_folder)
    bases = sides[0].base, sides[1].base
    layer_map = map_layers(bases[0].layers, bases[1].layers)
    shared = [role for role in bases[1].roles if role in bases[0].roles]
    landings = [Landing(layer, layer_map[layer], role) for layer in range(bases[1].layers) for role in shared]
    moments = [pair_moments(landings, *sides, part) for part in (strings[:14], strings[14:])]
    return landings, fit_maps(landings, bases, *moments, layer_map)


def moved(source_folder, target_folder, adapter):
    landings, maps = fitted(source_folder, target_folder)
    updates = updates_by_role(read_adapter(adapter), open_base(source_folder)).updates
    return {
        (one.target_layer, one.role): carry(
            updates[one.source_layer, one.role], maps[one.target_layer, one.role]
        )
        for one in landings
        if (one.source_layer, one.role) in updates
    }, updates


def test_a_rewritten_model_gets_the_adapter_that_makes_it_answer_the_same(tmp_path):
    heads = {"num_key_value_heads": 4, "intermediate_size": 48}
    folder = build_pico("llama", tmp_path / "old", overrides={**heads, "tie_word_embeddings": False})
    other = rewritten(folder, tmp_path / "new")
    assert_close(logits(other, None), logits(folder, None), torch.float32)
    adapter = make_adapter(folder, tmp_path / "adapter", strength=0.3)
    found, _ = moved(folder, other, adapter)
    write_adapter(tmp_path / "moved", open_base(other), found, dtype=torch.float32)
    wanted = logits(folder, adapter) - logits(folder, None)
    got = logits(other, tmp_path / "moved") - logits(other, None)
    assert float(wanted.abs().max()) > 0.05
    assert float((got - wanted).norm()) < 0.05 * float(wanted.norm())


def test_a_base_is_mapped_onto_itself_by_the_identity(tmp_path):
    folder = build_pico("llama", tmp_path / "old")
    found, updates = moved(folder, folder, make_adapter(folder, tmp_path / "adapter"))
    for key, one in found.items():
        wanted = dense(updates[key])
        assert float((dense(one) - wanted).norm()) < 0.02 * float(wanted.norm())


@pytest.mark.parametrize("family", PICO_FAMILIES)
def test_every_family_is_mapped_to_and_from(family, tmp_path):
    source = build_pico(family, tmp_path / "source", width=40)
    target = build_pico("llama", tmp_path / "target", seed=1)
    for one, other in ((source, target), (target, source)):
        _, maps = fitted(one, other, TEXTS[:16])
        bases = open_base(one), open_base(other)
        for (layer, role), found in maps.items():
            ours, theirs = bases[0].linear(layer, role), bases[1].linear(layer, role)
            assert found.input.shape == (ours.d_in, theirs.d_in)
            assert found.output.shape == (theirs.d_out, ours.d_out)
            assert 0 < found.fit.input_error < 1.1 and 0 < found.fit.output_error < 1.5
            assert bool(found.output.isfinite().all()) and float(found.output.norm()) > 0


def test_the_ridge_is_the_one_that_predicts_held_out_probes_best(tmp_path):
    """Held-out moments of unrelated responses ask for the largest ridge, the fitted ones for the smallest."""
    base = open_base(build_pico("llama", tmp_path / "base"))
    drawn = torch.Generator().manual_seed(0)

    def moments() -> PairMoments:
        result = PairMoments()
        x, y = (torch.randn(50, width, generator=drawn) for width in (64, 32))
        result.add_inputs((0, Role.down), x, x @ torch.randn(64, 64, generator=drawn))
        result.add_writes((0, Role.down), y, y @ torch.randn(32, 32, generator=drawn), stream=True)
        return result

    landing, first, second = [Landing(0, 0, Role.down)], moments(), moments()
    apart = fit_maps(landing, (base, base), first, second, [0, 1])[0, Role.down].fit
    same = fit_maps(landing, (base, base), first, first, [0, 1])[0, Role.down].fit
    assert (apart.input_ridge, apart.output_ridge) == (100.0, 100.0)
    assert (same.input_ridge, same.output_ridge) == (1e-8, 1e-8)


FIT = MapFit(0.01, 0.1, 0.01, 0.1, 100, source_norm=2.0, target_norm=4.0, copies=1)
UPDATE = LoraFactors(torch.eye(2, 3), torch.eye(3, 2), 0.5)


def test_a_layer_mapped_twice_acts_once():
    maps = ModuleMaps(torch.eye(3), torch.eye(3), replace(FIT, copies=2))
    assert_close(dense(carry(UPDATE, maps)), dense(UPDATE) / 2)


def test_an_updates_size_beside_its_weight_is_bounded():
    maps = ModuleMaps(100 * torch.eye(3), torch.eye(3), FIT)
    assert frobenius_norm(carry(UPDATE, maps)) == pytest.approx(2 * STRONGEST * frobenius_norm(UPDATE))
    weaker = ModuleMaps(1.5 * torch.eye(3), torch.eye(3), FIT)
    assert frobenius_norm(carry(UPDATE, weaker)) == pytest.approx(1.5 * frobenius_norm(UPDATE))


def test_files_keep_the_maps(tmp_path):
    folder = build_pico("llama", tmp_path / "old")
    _, maps = fitted(folder, build_pico("gemma2", tmp_path / "new", width=40))
    write_maps(tmp_path / "maps", maps)
    file = GroupFile(tmp_path / "maps", CPU)
    for key, one in maps.items():
        again = read_maps(file, *key)
        assert again.fit == one.fit
        assert torch.equal(again.input, one.input) and torch.equal(again.output, one.output)
