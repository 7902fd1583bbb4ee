"""vLLM's rules, each broken once on an adapter that is served otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cross_lora_core.adapters import serving_problems, write_adapter
from cross_lora_core.models import BaseModel, open_base
from tests.support.fleets import make_adapter, some_updates
from tests.support.pico_models import PICO_FAMILIES


@pytest.fixture(scope="module")
def base(pico) -> BaseModel:
    return open_base(pico("llama"))


@pytest.fixture
def folder(base: BaseModel, tmp_path: Path) -> Path:
    write_adapter(tmp_path / "served", base, some_updates(base))
    return tmp_path / "served"


def change_config(folder: Path, **changes: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_tensors(folder: Path, change) -> None:
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


@pytest.mark.parametrize("family", PICO_FAMILIES)
def test_what_this_project_writes_is_served(pico, tmp_path: Path, family: str):
    base = open_base(pico(family))
    write_adapter(tmp_path / "served", base, some_updates(base))
    assert serving_problems(tmp_path / "served", base) == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "peft_type"),
        ({"base_model_name_or_path": "another/base"}, "another/base"),
        ({"r": 24}, "r = 24"),
        ({"r": None}, "r = None"),
        ({"lora_alpha": 0.5}, "lora_alpha"),
        ({"bias": "all"}, "trained biases"),
        ({"init_lora_weights": "pissa"}, "may change the base"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"lora_bias": True}, "lora_bias"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
    ],
)
def test_a_config_that_is_not_served(base, folder: Path, changes: dict, said: str):
    change_config(folder, **changes)
    assert any(said in one for one in serving_problems(folder, base))


def test_a_rank_above_the_servers_largest(base, folder: Path):
    assert serving_problems(folder, base, max_lora_rank=8) == ()
    assert any("r = 8" in one for one in serving_problems(folder, base, max_lora_rank=1))


def renamed(tensors, old: str, new: str):
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: renamed(t, "base_model.model.model", "base_model.model.language_model"), "no such module"),
        (lambda t: renamed(t, "q_proj", "qq_proj"), "qq_proj"),
        (lambda t: renamed(t, ".weight", ".default.weight"), "no such module"),
        (lambda t: {n: x for n, x in t.items() if not n.endswith("lora_A.weight")}, "one factor is missing"),
        (lambda t: {n: x[:-1] if "lora_A" in n else x for n, x in t.items()}, "shape"),
        (lambda t: {n: x.double() for n, x in t.items()}, "F64"),
        (lambda _: {"x": torch.zeros(1)}, "no LoRA factors at all"),
    ],
)
def test_tensors_that_are_not_served_or_change_nothing(base, folder: Path, change, said: str):
    change_tensors(folder, change)
    assert any(said in one for one in serving_problems(folder, base))


def test_files_that_are_not_there_or_damaged(base, folder: Path, tmp_path: Path):
    (folder / "adapter_model.safetensors").write_bytes(b"x" * 20)
    assert "missing or damaged" in serving_problems(folder, base)[0]
    assert "missing or damaged" in serving_problems(tmp_path / "absent", base)[0]
    (folder / "adapter_config.json").write_text("[]")
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
    assert serving_problems(folder, base) == ("adapter_config.json is not a JSON object",)


def test_an_adapter_as_peft_saves_it_is_judged_by_the_same_rules(pico, base, tmp_path: Path):
    saved = make_adapter(pico("llama"), tmp_path / "saved")
    problems = serving_problems(saved, base)
    assert any("r = 4" in one for one in problems)
    assert any("base_model_name_or_path is" in one for one in problems)
    assert not any("no such module" in one for one in problems)
