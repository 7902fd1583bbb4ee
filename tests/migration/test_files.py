"""The stored form of a layer group."""

from __future__ import annotations

import torch

from cross_lora_core.algebra import LoraFactors
from cross_lora_core.migration import ModuleMeasure, Projected, read_projections, write_projections
from cross_lora_core.models import Role


def test_one_source_layer_may_serve_two_layers_of_a_deeper_target(tmp_path):
    update = LoraFactors(torch.randn(2, 6), torch.randn(5, 2))

    def at(layer: int) -> Projected:
        return Projected(update, ModuleMeasure(layer, Role.q, 0, None, None, None, 1.0, 1.0, 1.0))

    write_projections(tmp_path / "group", {(layer, Role.q): at(layer) for layer in (1, 2)})
    read = read_projections(tmp_path / "group")
    assert {key: one.measure.source_layer for key, one in read.items()} == {(1, Role.q): 0, (2, Role.q): 0}
    for one in read.values():
        assert torch.equal(one.update.lora_A, update.lora_A)
        assert torch.equal(one.update.lora_B, update.lora_B)
