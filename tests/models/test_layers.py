"""Layer groups and layer maps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.models import Role, factor_bytes, layer_groups, map_layers, open_base
from tests.models.conftest import PicoFactory

DEPTH = st.integers(1, 130)


def test_factor_bytes_are_those_of_the_tensors(pico: PicoFactory) -> None:
    base = open_base(pico("llama"))
    expected = 0
    for role in Role:
        d_out, d_in = base.read_weight(0, role).shape
        rank = min(20, d_out, d_in)
        expected += 4 * (d_out * rank + rank + rank * d_in)
    assert factor_bytes(base, 0, 20) == expected


@given(limit=st.integers(1, 2_000_000), rank=st.integers(1, 40))
def test_groups_cover_the_layers_in_order_and_stay_under_the_limit(
    deep: object, limit: int, rank: int
) -> None:
    base = deep
    groups = layer_groups(base, rank=rank, byte_limit=limit)
    assert [layer for group in groups for layer in group.layers] == list(range(base.layers))
    assert [group.index for group in groups] == list(range(len(groups)))
    for group in groups:
        size = sum(factor_bytes(base, layer, rank) for layer in group.layers)
        assert size <= limit or len(group.layers) == 1
    assert groups == layer_groups(base, rank=rank, byte_limit=limit)


@pytest.fixture(scope="module")
def deep(pico: PicoFactory) -> object:
    return open_base(pico("qwen2", layers=9))


def test_a_small_base_is_one_group(deep: object) -> None:
    (group,) = layer_groups(deep, rank=320)
    assert (group.index, group.first, group.last) == (0, 0, 8)


@pytest.mark.parametrize(("rank", "limit"), [(0, 1), (1, 0), (-1, 5)])
def test_a_setting_that_cannot_be_met_is_named(deep: object, rank: int, limit: int) -> None:
    with pytest.raises(ConfigurationError):
        layer_groups(deep, rank=rank, byte_limit=limit)


@given(DEPTH)
def test_the_same_depth_maps_to_itself(depth: int) -> None:
    assert map_layers(depth, depth) == tuple(range(depth))


@given(DEPTH, DEPTH)
def test_the_map_is_monotone_and_joins_the_ends(source: int, target: int) -> None:
    chosen = map_layers(source, target)
    assert len(chosen) == target
    assert list(chosen) == sorted(chosen)
    assert chosen[0] == 0
    assert chosen[-1] == (source - 1 if target > 1 else 0)
    if target >= source and target > 1:
        assert set(chosen) == set(range(source))


def test_known_maps() -> None:
    assert map_layers(3, 5) == (0, 0, 1, 2, 2)
    assert map_layers(5, 3) == (0, 2, 4)
    assert map_layers(18, 30)[:6] == (0, 1, 1, 2, 2, 3)


def test_another_rule_is_used_and_checked() -> None:
    assert map_layers(4, 2, lambda source, target: (3, 0)) == (3, 0)
    for bad in ((0,), (0, 4), (-1, 0)):
        with pytest.raises(ConfigurationError):
            map_layers(4, 2, lambda source, target, bad=bad: bad)


@pytest.mark.parametrize(("source", "target"), [(0, 2), (2, 0), (-1, 1)])
def test_a_base_without_layers_cannot_be_mapped(source: int, target: int) -> None:
    with pytest.raises(ConfigurationError):
        map_layers(source, target)
