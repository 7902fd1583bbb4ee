"""Signed matching of neurons: planted order, signs and scales are found; what cannot be turned is not."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from cross_lora_core.algebra import Correlations
from cross_lora_core.fitting.neurons import match_neurons, neuron_map
from cross_lora_core.models import Role
from tests.support.tolerances import assert_close

ROWS = 300


def correlations(x, y):
    found = Correlations(x.mean(0), y.mean(0))
    for part in (slice(0, 100), slice(100, None)):
        found.add(x[part], y[part])
    return found


def silu(x):
    return torch.nn.functional.silu(x)


@given(ours=st.integers(1, 8), theirs=st.integers(1, 8), seed=st.integers(0, 99))
def test_gated_neurons_are_found_with_their_signs_and_scales(ours, theirs, seed):
    drawn = torch.Generator().manual_seed(seed)
    count = min(ours, theirs)
    gate, up = (torch.randn(ROWS, ours, generator=drawn) for _ in range(2))
    other_gate, other_up = (torch.randn(ROWS, theirs, generator=drawn) for _ in range(2))
    source, target = (torch.randperm(n, generator=drawn)[:count] for n in (ours, theirs))
    sign = torch.randint(0, 2, (count,), generator=drawn).mul(2).sub(1)
    scale = (0.5 + torch.rand(count, generator=drawn)) * sign
    other_gate[:, target], other_up[:, target] = gate[:, source], scale * up[:, source]
    found = {
        Role.gate: correlations(gate, other_gate),
        Role.up: correlations(up, other_up),
        Role.down: correlations(silu(gate) * up, silu(other_gate) * other_up),
    }
    match = match_neurons(found)
    assert sorted(zip(match.source.tolist(), match.target.tolist(), strict=True)) == sorted(
        zip(source.tolist(), target.tolist(), strict=True)
    )
    G_gate, left = neuron_map(found[Role.gate], match, turned=False)
    G_up, _ = neuron_map(found[Role.up], match, turned=True)
    assert left < 1e-6
    assert_close((gate.double() @ G_gate.T)[:, target], other_gate.double()[:, target], torch.float32)
    assert_close((up.double() @ G_up.T)[:, target], other_up.double()[:, target], torch.float32)


def test_a_neuron_without_a_gate_is_never_turned():
    """`gelu(-x)` is not `-gelu(x)`: the one that goes against it is no partner, and gets nothing."""
    x = torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(0))
    found = {Role.up: correlations(x, -x), Role.down: correlations(silu(x), silu(-x))}
    match = match_neurons(found)
    G, left = neuron_map(found[Role.up], match, turned=True)
    assert match.sign.tolist() == [1.0]
    assert float(G.abs().max()) == 0.0 and left == 1.0


def test_what_goes_together_by_half_is_carried_by_half():
    drawn = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(4000, 1, generator=drawn) for _ in range(2))
    found = correlations(x, 2.0 * (x + noise * 3**0.5))
    match = match_neurons({Role.up: found, Role.down: found})
    G, left = neuron_map(found, match, turned=True)
    assert abs(float(G) - 2.0) < 0.15
    assert abs(left - 0.75) < 0.05


def test_silent_neurons_are_matched_with_nothing():
    x = torch.zeros(ROWS, 2)
    match = match_neurons({Role.up: correlations(x, x), Role.down: correlations(x, x)})
    G, _ = neuron_map(correlations(x, x), match, turned=True)
    assert bool(G.isfinite().all()) and float(G.abs().max()) == 0.0
