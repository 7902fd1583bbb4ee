"""From module paths, as adapters write them, to roles."""

from __future__ import annotations

import pytest

from cross_lora_core.errors import UnknownArchitecture
from cross_lora_core.models import FAMILIES, Role, find_role, open_base
from tests.models.conftest import PicoFactory
from tests.support.pico_models import PICO_FAMILIES

QKV = (Role.q, Role.k, Role.v)


@pytest.mark.parametrize(
    ("family", "path", "expected"),
    [
        ("llama", "model.layers.3.self_attn.q_proj", (3, (Role.q,))),
        ("llama", "layers.11.mlp.down_proj", (11, (Role.down,))),
        ("llama", "base_model.model.model.layers.0.mlp.gate_proj", (0, (Role.gate,))),
        ("gpt2", "transformer.h.3.attn.c_attn", (3, QKV)),
        ("gpt2", "h.3.mlp.c_proj", (3, (Role.down,))),
        ("gpt2", "transformer.h.3.attn.c_proj", (3, (Role.o,))),
        ("phi3", "model.layers.1.mlp.gate_up_proj", (1, (Role.gate, Role.up))),
        ("opt", "model.decoder.layers.2.fc1", (2, (Role.up,))),
        ("gpt_neox", "gpt_neox.layers.5.attention.query_key_value", (5, QKV)),
        ("falcon", "transformer.h.0.self_attention.dense", (0, (Role.o,))),
        ("gemma3", "model.language_model.layers.4.self_attn.v_proj", (4, (Role.v,))),
        ("gemma3", "model.vision_tower.vision_model.encoder.layers.4.self_attn.v_proj", None),
        ("llama", "model.layers.3.self_attn.qkv_proj", None),
        ("llama", "model.layers.x.self_attn.q_proj", None),
        ("llama", "model.layers.3.self_attn.q_proj.weight", None),
        ("llama", "my_layers.3.self_attn.q_proj", None),
        ("llama", "lm_head", None),
        ("llama", "", None),
    ],
)
def test_a_path_is_a_layer_and_roles_or_nothing(family: str, path: str, expected: object) -> None:
    assert find_role(family, path) == expected


@pytest.mark.parametrize("family", PICO_FAMILIES)
def test_the_module_of_a_spec_leads_back_to_its_role(pico: PicoFactory, family: str) -> None:
    base = open_base(pico(family))
    for spec in base.linears():
        layer, roles = find_role(base, spec.module) or (None, ())
        assert layer == spec.layer
        assert spec.role in roles
        assert (len(roles) > 1) == (spec.fused_out is not None)


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(UnknownArchitecture, match="mixtral"):
        find_role("mixtral", "model.layers.0.self_attn.q_proj")


def test_every_family_of_the_pico_models_has_a_table() -> None:
    assert set(PICO_FAMILIES) <= set(FAMILIES)
