"""Which bases turn their heads alike."""

from __future__ import annotations

import pytest

from cross_lora_core.models import open_base
from cross_lora_core.models.rotary import rotary_of
from tests.support.pico_models import build_pico


def test_old_and_new_spellings_of_the_same_rotation_are_equal():
    new = rotary_of({"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}, 16)
    assert new is not None
    assert new == rotary_of({"rope_theta": 10000, "rope_scaling": None}, 16)


@pytest.mark.parametrize(
    ("config", "head_dim"),
    [
        ({"rope_theta": 500000.0}, 16),
        ({"rope_theta": 10000.0}, 32),
        ({"rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 16),
        ({"rope_theta": 10000.0, "rope_local_base_freq": 100.0}, 16),
    ],
)
def test_other_rotations_differ(config, head_dim):
    other = rotary_of(config, head_dim)
    assert other is not None
    assert other != rotary_of({"rope_theta": 10000.0}, 16)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        {"rope_theta": 10000.0, "rotary_pct": 0.25},
        {"rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
        {"rope_parameters": {"full_attention": {"rope_theta": 10000.0}}},
    ],
)
def test_what_is_not_stated_or_not_of_the_whole_head_is_not_compared(config):
    assert rotary_of(config, 16) is None


def test_bases_say_it(tmp_path):
    llama, gpt2 = (open_base(build_pico(name, tmp_path / name)) for name in ("llama", "gpt2"))
    assert llama.rotary is not None and llama.rotary.head_dim == llama.head_dim
    assert gpt2.rotary is None
