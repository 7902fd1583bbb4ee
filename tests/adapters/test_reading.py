"""What is read must be what PEFT computes, variant by variant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cross_lora_core.adapters import check_adapter, read_adapter, updates_by_role
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.models import Role, open_base
from tests.support.fleets import make_adapter, poison
from tests.support.oracle import dense
from tests.support.tolerances import assert_close

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {}),
    "rslora": ("llama", {"use_rslora": True}),
    "rank_pattern": ("llama", {"rank_pattern": {"q_proj": 2, "layers.1.self_attn.v_proj": 3}}),
    "alpha_pattern": ("llama", {"alpha_pattern": {"k_proj": 32, r"layers\.0\..*\.o_proj": 1}}),
    "both patterns": (
        "llama",
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 5}, "use_rslora": True},
    ),
    "all-linear": ("llama", {"target_modules": "all-linear"}),
    "regex": ("llama", {"target_modules": r".*layers\.1\.mlp\.(up|down)_proj"}),
    "layers_to_transform": ("llama", {"layers_to_transform": [1]}),
    "exclude_modules": ("llama", {"exclude_modules": ["v_proj"]}),
    "eva-like gaussian init": ("llama", {"init_lora_weights": "gaussian"}),
    "Conv1D": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "fused phi3": ("phi3", {"target_modules": ["qkv_proj", "gate_up_proj", "o_proj"]}),
    "fused neox": ("gpt_neox", {"target_modules": ["query_key_value", "dense"]}),
    "fused bloom": ("bloom", {"target_modules": ["query_key_value"]}),
    "opt": ("opt", {"target_modules": ["q_proj", "out_proj", "fc1"]}),
    "gemma3": ("gemma3_text", {}),
}


def peft_deltas(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Every module's update as PEFT computes it, [d_out, d_in]."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    deltas = {}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            delta = module.get_delta_weight("default").detach()
            transposed = bool(getattr(module, "fan_in_fan_out", False))
            deltas[name.removeprefix("base_model.model.")] = delta.T if transposed else delta
    return deltas


@pytest.mark.parametrize("variant", VARIANTS)
def test_updates_are_pefts_own(pico, tmp_path, variant):
    family, config = VARIANTS[variant]
    base = pico(family)
    folder = make_adapter(base, tmp_path / "a", **config)
    adapter = read_adapter(folder)
    expected = peft_deltas(base, folder)
    assert {one.path for one in adapter.modules} == set(expected)
    for one in adapter.modules:
        assert_close(dense(one.update), expected[one.path], torch.float32)
    found = updates_by_role(adapter, open_base(base))
    assert found.modules == len(expected)
    assert not found.skipped
    for (layer, role), update in found.updates.items():
        spec = open_base(base).linear(layer, role)
        assert_close(dense(update), expected[spec.module][spec.row_index()], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_precisions(pico, tmp_path, dtype):
    """A half precision is kept; the digest is of the numbers, whatever they are stored in."""
    folder = make_adapter(pico("llama"), tmp_path / "a")
    file = folder / "adapter_model.safetensors"
    save_file({name: one.to(dtype) for name, one in load_file(file).items()}, file)
    adapter = read_adapter(folder)
    for one in adapter.modules:
        kept = torch.float32 if dtype == torch.float64 else dtype
        assert one.update.lora_A.dtype == one.update.lora_B.dtype == kept
    save_file({name: one.float() for name, one in load_file(file).items()}, file)
    assert read_adapter(folder).digest == adapter.digest


@pytest.mark.parametrize(
    "prefix", ["", "base_model.model.base_model.model.", "module.base_model.model.", "_orig_mod."]
)
@pytest.mark.parametrize("infix", ["", ".default", ".my-adapter"])
def test_odd_names_are_the_same_adapter(pico, tmp_path, prefix, infix):
    folder = make_adapter(pico("llama"), tmp_path / "a")
    digest = read_adapter(folder).digest
    file = folder / "adapter_model.safetensors"
    renamed = {
        prefix + name.removeprefix("base_model.model.").replace(".weight", f"{infix}.weight"): one
        for name, one in load_file(file).items()
    }
    save_file(renamed, file)
    assert read_adapter(folder).digest == digest


def test_the_legacy_file_is_the_same_adapter(pico, tmp_path):
    folder = make_adapter(pico("llama"), tmp_path / "a")
    digest = read_adapter(folder).digest
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    assert read_adapter(folder).digest == digest


def test_no_code_runs_from_a_legacy_file(pico, tmp_path):
    folder = make_adapter(pico("llama"), tmp_path / "a")
    (folder / "adapter_model.safetensors").unlink()

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"base_model.model.x.lora_A.weight": Evil()}, folder / "adapter_model.bin")
    with pytest.raises(AdapterRefused, match="a file of tensors only"):
        read_adapter(folder)
    assert not (tmp_path / "ran").exists()


# refusals


def edit(folder: Path, **fields: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return folder


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"peft_type": "LOHA"}, "got peft_type LOHA"),
        ({"peft_type": None}, "peft_type None"),
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "lora_B has a bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "changed the base weights"),
        ({"init_lora_weights": "olora"}, "changed the base weights"),
        ({"alora_invocation_tokens": [1, 2]}, "activated LoRA"),
        ({"layer_replication": [[0, 2]]}, "copying layers"),
        ({"target_parameters": ["experts.w"]}, "bare parameters"),
        ({"use_qalora": True}, "QALoRA"),
        ({"use_tomorrow": True}, "use_tomorrow is not known"),
        ({"r": 5}, "rank 5"),
        ({"r": "many"}, "numbers for r and lora_alpha"),
    ],
)
def test_configs_that_are_refused_by_name(pico, tmp_path, fields, words):
    folder = edit(make_adapter(pico("llama"), tmp_path / "a"), **fields)
    with pytest.raises(AdapterRefused, match=words):
        read_adapter(folder)
    found = check_adapter(folder)
    assert (found.status, found.usable) == ("refused", 0)
    assert words in found.reason


def test_unknown_fields_without_effect_are_noted(pico, tmp_path):
    folder = edit(make_adapter(pico("llama"), tmp_path / "a"), novelty="x")
    assert check_adapter(folder).reason == "config field novelty is not known and was not used"


def test_files_that_are_refused(pico, tmp_path):
    whole = make_adapter(pico("llama"), tmp_path / "a")
    weights = whole / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(AdapterRefused, match="a whole safetensors file"):
        read_adapter(whole)
    weights.unlink()
    with pytest.raises(AdapterRefused, match="neither"):
        read_adapter(whole)
    (whole / "adapter_config.json").write_text("{")
    with pytest.raises(AdapterRefused, match="a readable adapter_config"):
        read_adapter(whole)
    (whole / "adapter_config.json").write_text("[]")
    with pytest.raises(AdapterRefused, match="a JSON object"):
        read_adapter(whole)
    with pytest.raises(AdapterRefused, match="no such file"):
        read_adapter(tmp_path / "absent")


def test_not_a_number_is_refused_by_the_tensors_name(pico, tmp_path):
    folder = poison(make_adapter(pico("llama"), tmp_path / "a"))
    with pytest.raises(AdapterRefused, match=r"layers\.0\.self_attn\.k_proj\.lora_A"):
        read_adapter(folder)


@pytest.mark.parametrize("keep", ["A", "B"])
def test_half_a_pair_is_refused(pico, tmp_path, keep):
    folder = make_adapter(pico("llama"), tmp_path / "a")
    file = folder / "adapter_model.safetensors"
    save_file({name: one for name, one in load_file(file).items() if f"lora_{keep}" in name}, file)
    with pytest.raises(AdapterRefused, match=f"only lora_{keep}"):
        read_adapter(folder)


def test_a_file_without_lora_is_refused(pico, tmp_path):
    folder = make_adapter(pico("llama"), tmp_path / "a")
    save_file({"weight": torch.zeros(2)}, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterRefused, match="1 other tensors"):
        read_adapter(folder)


def test_the_same_module_twice_is_refused(pico, tmp_path):
    folder = make_adapter(pico("llama"), tmp_path / "a")
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    save_file(tensors | {name.removeprefix("base_model."): tensors[name].clone()}, file)
    adapter = name.removeprefix("base_model.model.").split(".lora")[0]
    renamed = tensors | {name.removeprefix("base_model.model."): tensors[name].clone()}
    save_file(renamed, file)
    with pytest.raises(AdapterRefused, match=f"two for {adapter}"):
        read_adapter(folder)


# parts that are reported


def test_saved_modules_biases_and_embeddings_are_reported(pico, tmp_path):
    base = pico("llama")
    folder = make_adapter(
        base, tmp_path / "a", modules_to_save=["lm_head"], target_modules=["q_proj", "embed_tokens"]
    )
    found = check_adapter(folder, open_base(base))
    assert found.status == "partial"
    assert found.usable == 2
    assert "lm_head: a fully trained layer" in found.reason
    assert "a LoRA on the embedding" in found.reason


def test_trained_biases_are_reported(pico, tmp_path):
    base = pico("qwen2")
    folder = make_adapter(base, tmp_path / "a", bias="all", target_modules=["q_proj"])
    found = check_adapter(folder, open_base(base))
    assert (found.status, found.usable) == ("partial", 2)
    assert "a trained bias is not a low-rank update" in found.reason


def test_modules_without_a_role_are_reported(pico, tmp_path):
    base = pico("llama")
    folder = make_adapter(base, tmp_path / "a", target_modules=["q_proj", "lm_head"])
    found = check_adapter(folder, open_base(base))
    assert (found.status, found.modules, found.usable) == ("partial", 3, 2)
    assert "lm_head: no projection of the llama architecture" in found.reason


@pytest.mark.parametrize(
    ("family", "words"), [("gpt2", "modules of a gpt2 base"), ("gemma3_text", "This is the wrong base")]
)
def test_another_base_is_refused(pico, tmp_path, family, words):
    folder = make_adapter(pico("llama"), tmp_path / "a")
    with pytest.raises(AdapterRefused, match=words):
        updates_by_role(read_adapter(folder), open_base(pico(family)))


def test_a_base_with_fewer_layers_is_refused(pico, tmp_path):
    from tests.support.pico_models import build_pico

    shallow = open_base(build_pico("llama", tmp_path / "shallow", layers=1))
    folder = make_adapter(pico("llama"), tmp_path / "a")
    with pytest.raises(AdapterRefused, match="a layer below 1"):
        updates_by_role(read_adapter(folder), shallow)


def test_check_says_exactly_what_scripts_rely_on(pico, tmp_path):
    base = pico("llama")
    folder = make_adapter(base, tmp_path / "a", rank_pattern={"q_proj": 2})
    found = check_adapter(folder, open_base(base)).as_dict()
    assert list(found) == ["status", "reason", "modules", "usable", "rank", "scaling", "variant", "base"]
    assert found == {
        "status": "ok",
        "reason": "",
        "modules": 8,
        "usable": 8,
        "rank": 4,
        "scaling": None,
        "variant": "lora",
        "base": "llama",
    }


def test_an_empty_adapter_is_ok_and_said_to_be_empty(pico, tmp_path):
    found = check_adapter(make_adapter(pico("llama"), tmp_path / "a", strength=0.0))
    assert found.status == "ok"
    assert "changes nothing" in found.reason


def test_the_digest_is_of_the_update(pico, tmp_path):
    base = pico("llama")
    first = read_adapter(make_adapter(base, tmp_path / "a", seed=1))
    again = read_adapter(make_adapter(base, tmp_path / "b", seed=1))
    assert first.digest == again.digest
    others = [
        make_adapter(base, tmp_path / "c", seed=2),
        make_adapter(base, tmp_path / "d", seed=1, lora_alpha=9),
    ]
    assert len({first.digest, *(read_adapter(one).digest for one in others)}) == 3
    assert {role for _, role in updates_by_role(first, open_base(base)).updates} == {
        Role.q,
        Role.k,
        Role.v,
        Role.o,
    }
