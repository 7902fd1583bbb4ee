"""A stream carried up layer by layer is the stream of the ordinary forward pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cross_lora_core.algebra import LoraFactors
from cross_lora_core.evaluation import LoadedBase
from cross_lora_core.models import Role, open_base
from cross_lora_core.responses import Frontier, layer_paths, pair_batches, respond, with_updates
from tests.support.pico_models import PICO_FAMILIES, build_pico

TEXTS = ("the cat sat on the mat in Paris", "été 42! the dog is in the city", "Paris is the city of the cat!")


def opened(folder: Path):
    base, model = open_base(folder), LoadedBase(folder, torch.float32, torch.device("cpu"))
    return base, model, [one.target for one in pair_batches(model, model, TEXTS, batch=2)]


def boundary(base, model, batches, number: int):
    found = [respond(model, one, layers=layer_paths(base), boundaries=[number]) for one in batches]
    return torch.cat([one.boundaries[number] for one in found])


@pytest.mark.parametrize("family", PICO_FAMILIES)
def test_every_layer_gives_the_models_own_stream(family, tmp_path):
    base, model, batches = opened(build_pico(family, tmp_path / "base", layers=3))
    frontier = Frontier(model, batches, layer_paths(base))
    for layer in range(base.layers):
        spec = base.linear(layer, Role.down)
        run = frontier.look(spec.module)
        assert torch.equal(run.stream, boundary(base, model, batches, layer + 1))
        assert (run.inputs.shape[1], run.outputs.shape[1]) == (spec.d_in, spec.d_out)
        frontier.advance()


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_updates_in_place_are_carried_along(family, tmp_path):
    base, model, batches = opened(build_pico(family, tmp_path / "base", layers=3))
    made = torch.Generator().manual_seed(0)
    updates = {}
    for layer in range(2):
        spec = base.linear(layer, Role.down)
        A = torch.randn(2, spec.d_in, generator=made)
        updates[spec.module] = LoraFactors(A, torch.randn(spec.d_out, 2, generator=made), scaling=0.5)
    before = boundary(base, model, batches, 3)
    with with_updates(model, updates):
        whole = boundary(base, model, batches, 3)
        frontier = Frontier(model, batches, layer_paths(base)[2:])
    assert torch.equal(frontier.look(base.linear(2, Role.down).module).stream, whole)
    assert not torch.equal(whole, before)
    assert torch.equal(boundary(base, model, batches, 3), before)  # nothing stays behind
