"""Opening a base: what it knows, what it survives, and what it says when something is wrong."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cross_lora_core.errors import BaseModelError, UnknownArchitecture
from cross_lora_core.models import Role, open_base
from tests.models.conftest import PicoFactory


def edit_config(folder: Path, **fields: Any) -> None:
    """Set fields of config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def rewrite_tensors(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def rename(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {
        (new + name.removeprefix(old) if name.startswith(old) else name): tensor
        for name, tensor in tensors.items()
    }


def test_an_open_base_says_what_it_is(pico: PicoFactory) -> None:
    base = open_base(pico("llama", layers=3, width=40), name="org/pico", revision="abc")
    assert (base.name, base.revision, base.family) == ("org/pico", "abc", "llama")
    assert (base.layers, base.d_model) == (3, 40)
    assert base.roles == tuple(Role)
    assert base.config["hidden_size"] == 40
    assert base.linear(2, Role.k).module == "model.layers.2.self_attn.k_proj"
    assert "org/pico" in repr(base)


def test_a_folder_is_named_after_itself(pico: PicoFactory) -> None:
    folder = pico("llama")
    base = open_base(str(folder))
    assert (base.name, base.revision, base.location) == (folder.name, None, str(folder))


def test_a_base_travels_as_its_location_and_opens_again(pico: PicoFactory) -> None:
    base = open_base(pico("gpt2"), name="mine", revision="r")
    base.tokens()
    sent = pickle.dumps(base)
    again = pickle.loads(sent)
    assert len(sent) < 1000
    assert (again.name, again.revision, again.linears()) == ("mine", "r", base.linears())
    assert torch.equal(again.read_weight(1, Role.v), base.read_weight(1, Role.v))


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt2"])
def test_shards_read_like_one_file(pico: PicoFactory, family: str) -> None:
    whole, sharded = open_base(pico(family)), open_base(pico(family, shards=3))
    assert whole.linears() == sharded.linears()
    for spec in whole.linears():
        assert torch.equal(
            whole.read_weight(spec.layer, spec.role), sharded.read_weight(spec.layer, spec.role)
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(pico: PicoFactory, dtype: torch.dtype) -> None:
    exact, half = open_base(pico("qwen2")), open_base(pico("qwen2", dtype=dtype))
    weight = half.read_weight(0, Role.q)
    assert weight.dtype == half.read_embedding([3]).dtype == torch.float32
    assert torch.equal(weight, exact.read_weight(0, Role.q).to(dtype).float())
    assert torch.equal(half.read_gains(0, Role.q)[0], exact.read_gains(0, Role.q)[0].to(dtype).float())


@pytest.mark.parametrize(
    ("family", "own", "stored"),
    [
        ("gpt2", "transformer.", ""),
        ("llama", "model.", ""),
        ("opt", "model.decoder.", "decoder."),
        ("bloom", "transformer.", ""),
        ("gpt_neox", "gpt_neox.", ""),
        ("gemma3_text", "model.", "language_model.model."),
    ],
)
def test_a_checkpoint_may_use_other_prefixes_than_the_causal_lm_class(
    own_pico: PicoFactory, family: str, own: str, stored: str
) -> None:
    folder = own_pico(family)
    before = open_base(folder)
    expected = [before.read_weight(spec.layer, spec.role) for spec in before.linears()]
    rewrite_tensors(folder, rename(own, stored))
    base = open_base(folder)
    for spec, weight in zip(base.linears(), expected, strict=True):
        assert torch.equal(base.read_weight(spec.layer, spec.role), weight)
        assert spec.module.startswith(own)
        assert spec.tensor.startswith(stored)
    assert base.read_gains(0, Role.q)[0] is not None


def test_layers_of_a_vision_tower_are_not_mistaken_for_the_decoders(own_pico: PicoFactory) -> None:
    folder = own_pico("gemma3_text")
    tower = {
        "vision_tower.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(4, 4),
        "vision_tower.embed_tokens.weight": torch.zeros(4, 4),
    }
    rewrite_tensors(folder, lambda tensors: {**tensors, **tower})
    assert open_base(folder).linear(0, Role.q).tensor == "model.layers.0.self_attn.q_proj.weight"


def test_a_tied_checkpoint_may_hold_only_the_head(own_pico: PicoFactory) -> None:
    folder = own_pico("gemma2")
    expected = open_base(folder).read_embedding([1, 2])
    rewrite_tensors(folder, rename("model.embed_tokens.", "lm_head."))
    assert torch.equal(open_base(folder).read_embedding([1, 2]), expected)


def test_sizes_that_the_config_leaves_out_come_from_the_checkpoint(own_pico: PicoFactory) -> None:
    folder = own_pico("llama")
    before = open_base(folder).linears()
    edit_config(
        folder,
        hidden_size=None,
        num_hidden_layers=None,
        intermediate_size=None,
        num_key_value_heads=None,
        head_dim=None,
        vocab_size=None,
    )
    assert open_base(folder).linears() == before


def test_old_field_names_are_known(own_pico: PicoFactory) -> None:
    folder = own_pico("bloom")
    before = open_base(folder).linears()
    edit_config(folder, hidden_size=None, n_embed=32, n_head=None, num_attention_heads=4)
    assert open_base(folder).linears() == before


def test_a_fused_projection_needs_the_number_of_heads(own_pico: PicoFactory) -> None:
    folder = own_pico("gpt_neox")
    edit_config(folder, num_attention_heads=None)
    with pytest.raises(BaseModelError, match="number of attention heads"):
        open_base(folder)


def test_an_untied_padded_embedding_is_as_long_as_it_is(pico: PicoFactory) -> None:
    base = open_base(pico("llama", overrides={"vocab_size": 400}))
    assert base.vocabulary == 400
    assert max(base.tokens().values()) < 400
    assert base.read_embedding([399]).shape == (1, 32)
    with pytest.raises(BaseModelError, match="token ids below 400"):
        base.read_embedding([0, 400])


@pytest.mark.parametrize(("layer", "role"), [(2, Role.q), (-1, Role.q), (0, Role.gate)])
def test_a_layer_or_role_that_is_not_there_is_named(pico: PicoFactory, layer: int, role: Role) -> None:
    base = open_base(pico("gpt2"))
    for read in (base.linear, base.read_weight, base.read_gains):
        with pytest.raises(BaseModelError, match=f"layer {layer}, role {role}"):
            read(layer, role)


@pytest.mark.parametrize("model_type", ["mixtral", "qwen2_moe", "t5", None])
def test_an_unknown_architecture_lists_the_known_ones(own_pico: PicoFactory, model_type: str | None) -> None:
    folder = own_pico("llama")
    edit_config(folder, model_type=model_type)
    with pytest.raises(UnknownArchitecture, match=r"llama.*gpt_neox") as caught:
        open_base(folder)
    assert (model_type or "no model_type") in caught.value.got


def test_weights_of_another_architecture_are_named(own_pico: PicoFactory) -> None:
    folder = own_pico("llama")
    edit_config(folder, model_type="gpt_neox")
    with pytest.raises(BaseModelError, match=r"gpt_neox\.layers\.0\.attention\.query_key_value"):
        open_base(folder)


@pytest.mark.parametrize(
    "config",
    [{"quantization_config": {"quant_method": "gptq"}}, {"quantization_config": {"load_in_4bit": True}}],
)
def test_a_quantised_base_is_refused(own_pico: PicoFactory, config: dict[str, Any]) -> None:
    folder = own_pico("llama")
    edit_config(folder, **config)
    with pytest.raises(BaseModelError, match="unquantised"):
        open_base(folder)


def test_opt_with_another_embedding_width_is_refused(pico: PicoFactory) -> None:
    with pytest.raises(BaseModelError, match="word_embed_proj_dim"):
        open_base(pico("opt", overrides={"word_embed_proj_dim": 16}))


@pytest.mark.parametrize("value", ["32", 0, [32]])
def test_a_size_that_is_not_a_size_is_named(own_pico: PicoFactory, value: Any) -> None:
    folder = own_pico("llama")
    edit_config(folder, hidden_size=value)
    with pytest.raises(BaseModelError, match="hidden_size"):
        open_base(folder)


@pytest.mark.parametrize("field", ["hidden_size", "intermediate_size", "num_attention_heads"])
@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_neox"])
def test_weights_that_contradict_the_config_are_named(own_pico: PicoFactory, family: str, field: str) -> None:
    folder = own_pico(family)
    config = json.loads((folder / "config.json").read_text())
    edit_config(folder, **{field: config[field] + 8, "head_dim": 8})
    with pytest.raises(BaseModelError, match=r"of shape .* as config.json implies"):
        open_base(folder)


def test_a_missing_tensor_is_named(own_pico: PicoFactory) -> None:
    folder = own_pico("llama")
    gone = "model.layers.1.mlp.up_proj.weight"
    rewrite_tensors(folder, lambda tensors: {name: t for name, t in tensors.items() if name != gone})
    with pytest.raises(BaseModelError, match=gone):
        open_base(folder)


def test_a_norm_of_another_width_is_named(own_pico: PicoFactory) -> None:
    folder = own_pico("llama")
    norm = "model.layers.0.input_layernorm.weight"
    rewrite_tensors(folder, lambda tensors: {**tensors, norm: torch.ones(31)})
    with pytest.raises(BaseModelError, match=norm):
        open_base(folder).read_gains(0, Role.q)


def test_more_layers_in_the_config_than_in_the_file_are_named(own_pico: PicoFactory) -> None:
    folder = own_pico("llama")
    edit_config(folder, num_hidden_layers=3)
    with pytest.raises(BaseModelError, match=r"model\.layers\.2"):
        open_base(folder)


def test_config_json_must_be_there_and_readable(own_pico: PicoFactory) -> None:
    folder = own_pico("llama")
    (folder / "config.json").write_text("{")
    with pytest.raises(BaseModelError, match=r"config\.json with one JSON object"):
        open_base(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(BaseModelError, match="a JSON list"):
        open_base(folder)
    (folder / "config.json").unlink()
    with pytest.raises(BaseModelError, match="no such file"):
        open_base(folder)


def test_an_adapter_folder_is_recognised_as_not_a_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseModelError, match="an adapter"):
        open_base(tmp_path)
