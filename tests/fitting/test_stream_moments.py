"""Moments of the residual streams of two bases, and the maps they give."""

from __future__ import annotations

import pytest
import torch

from cross_lora_core.algebra import ridge_map
from cross_lora_core.fitting import stream_moments
from cross_lora_core.migration import effect_landings, read_streams, write_streams
from cross_lora_core.responses import pair_batches, token_strings
from tests.support.pico_models import build_pico
from tests.support.sides import side, stream_at


def fitted_maps(source, target, strings, landings, ridge: float):
    moments = stream_moments(source, target, strings, landings)
    return {layer: ridge_map(one.about_means(), ridge).float() for layer, one in moments.items()}


def test_a_base_is_mapped_to_itself_by_the_identity(tmp_path):
    folder = build_pico("llama", tmp_path / "base", layers=2)
    source, target = side(folder), side(folder)
    strings = token_strings(source.base, target.base, 24, tokens=40)
    maps = fitted_maps(source, target, strings, effect_landings(2, 2), 1e-8)
    assert maps.keys() == {0, 1}
    for M in maps.values():
        torch.testing.assert_close(M, torch.eye(len(M)), atol=1e-3, rtol=0)


def test_they_are_the_weighted_ridge_regression_of_all_positions_at_once(tmp_path):
    ours, theirs = (
        build_pico("llama", tmp_path / "a"),
        build_pico("gemma3_text", tmp_path / "b", seed=4, width=64),
    )
    source, target = side(ours), side(theirs)
    landings = effect_landings(2, 2)
    strings = token_strings(source.base, target.base, 20, tokens=40)
    maps = fitted_maps(source, target, strings, landings, 0.01)
    batches = list(pair_batches(source.loaded, target.loaded, strings))
    for one in landings:
        x = stream_at(source, [each.source for each in batches], one.source_layer + 1).double()
        y = stream_at(target, [each.target for each in batches], one.target_layer + 1).double()
        w = 1 / y.pow(2).sum(1, keepdim=True)
        x, y = (each - (w * each).sum(0) / w.sum() for each in (x, y))
        xx = x.T @ (w * x)
        xx += 0.01 * xx.diagonal().mean() * torch.eye(len(xx))
        M = torch.linalg.solve(xx, x.T @ (w * y)).T
        torch.testing.assert_close(maps[one.target_layer].double(), M, atol=1e-4, rtol=1e-3)


def test_without_a_shared_position_there_is_no_map(tmp_path):
    folder = build_pico("llama", tmp_path / "base", layers=1)
    with pytest.raises(ValueError, match="positions that both tokenisations share"):
        stream_moments(side(folder), side(folder), ["a"], effect_landings(1, 1))


def test_stored_and_read_again_they_give_the_same_maps(tmp_path):
    ours, theirs = build_pico("llama", tmp_path / "a"), build_pico("qwen2", tmp_path / "b", seed=4, width=64)
    source, target = side(ours), side(theirs)
    strings = token_strings(source.base, target.base, 12, tokens=30)
    moments = stream_moments(source, target, strings, effect_landings(2, 2))
    write_streams(tmp_path / "moments", moments)
    read = read_streams(tmp_path / "moments", torch.device("cpu"))
    assert read.keys() == moments.keys()
    for layer, one in moments.items():
        assert (read[layer].weight, read[layer].moments.count) == (one.weight, one.moments.count)
        maps = (ridge_map(each.about_means(), 1e-3) for each in (read[layer], one))
        torch.testing.assert_close(*maps, atol=1e-3, rtol=1e-3)
