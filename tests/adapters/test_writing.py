"""What is written loads in PEFT on the target, N of N modules, with the update that was meant."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cross_lora_core.adapters import (
    read_adapter,
    servable_rank,
    updates_by_role,
    verify_adapter,
    write_adapter,
)
from cross_lora_core.algebra import LoraFactors
from cross_lora_core.errors import AdapterRefused, ConfigurationError
from cross_lora_core.models import Role, open_base
from tests.support.fleets import some_updates
from tests.support.oracle import dense, truncated
from tests.support.pico_models import PICO_FAMILIES
from tests.support.tolerances import assert_close


def loaded_deltas(location: Path, folder: Path) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(location), folder)
    return {
        name.removeprefix("base_model.model."): (
            module.get_delta_weight("default").T
            if module.fan_in_fan_out
            else module.get_delta_weight("default")
        ).detach()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


@pytest.mark.parametrize("family", PICO_FAMILIES)
def test_every_family_loads_whole(pico, tmp_path, family):
    location = pico(family)
    base = open_base(location)
    updates = some_updates(base)
    written = write_adapter(tmp_path / "a", base, updates, dtype=torch.float32)
    deltas = loaded_deltas(location, tmp_path / "a")
    assert len(deltas) == written.modules == len({spec.module for spec in base.linears()})
    for (layer, role), update in updates.items():
        spec = base.linear(layer, role)
        assert_close(deltas[spec.module][spec.row_index()], dense(update), torch.float32)
    report = verify_adapter(tmp_path / "a", base)
    assert (report.expected, report.landed, report.problems) == (written.modules, written.modules, ())


def test_the_config_is_what_servers_accept(pico, tmp_path):
    base = open_base(pico("llama"), name="org/successor", revision="abc123")
    updates = some_updates(base, (Role.q, Role.v))
    written = write_adapter(tmp_path / "a", base, updates)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/successor", "abc123")
    assert config["r"] == config["lora_alpha"] == written.rank == 8
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert not config["use_dora"]
    assert config["modules_to_save"] is None
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert {one.dtype for one in tensors.values()} == {torch.float16}
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in tensors


def test_modules_missing_in_some_layers_are_named_in_full(pico, tmp_path):
    location = pico("llama")
    base = open_base(location)
    updates = {key: one for key, one in some_updates(base, (Role.q,)).items() if key[0] == 1}
    write_adapter(tmp_path / "a", base, updates)
    assert set(loaded_deltas(location, tmp_path / "a")) == {"model.layers.1.self_attn.q_proj"}


@pytest.mark.parametrize(("needed", "rank"), [(1, 1), (2, 8), (8, 8), (9, 16), (300, 320), (321, 512)])
def test_ranks_are_rounded_up_to_one_that_is_served(needed, rank):
    assert servable_rank(needed) == rank


def test_a_rank_nobody_serves_is_refused():
    with pytest.raises(ConfigurationError, match="at most 512"):
        servable_rank(513)


def test_a_smaller_rank_truncates_and_says_what_it_cost(pico, tmp_path):
    base = open_base(pico("llama"))
    updates = some_updates(base, (Role.q,), rank=12)
    written = write_adapter(tmp_path / "a", base, updates, rank=8, dtype=torch.float32)
    assert written.rank == 8
    assert 0 < written.truncation_loss < 1
    found = updates_by_role(read_adapter(tmp_path / "a"), base).updates
    for key, update in updates.items():
        assert_close(dense(found[key]), truncated(dense(update), 8), torch.float32)


def test_the_same_input_gives_the_same_bytes(pico, tmp_path):
    base = open_base(pico("phi3"))
    updates = some_updates(base)
    for name in ("a", "b"):
        write_adapter(tmp_path / name, base, dict(reversed(updates.items())) if name == "b" else updates)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(("scale", "words"), [(1e9, "overflow"), (1e-16, "all zeros")])
def test_numbers_that_do_not_fit_half_precision_are_refused_and_nothing_is_written(
    pico, tmp_path, scale, words
):
    base = open_base(pico("llama"))
    updates = {
        key: LoraFactors(one.lora_A, one.lora_B, scale) for key, one in some_updates(base, (Role.q,)).items()
    }
    with pytest.raises(AdapterRefused, match=words):
        write_adapter(tmp_path / "a", base, updates)
    assert list(tmp_path.iterdir()) == []
    write_adapter(tmp_path / "a", base, updates, dtype=torch.float32)


def test_lopsided_factors_fit_half_precision_because_they_are_balanced(pico, tmp_path):
    base = open_base(pico("llama"))
    plain = some_updates(base, (Role.q,))
    lopsided = {
        key: LoraFactors(one.lora_A * 1e8, one.lora_B * 1e-8, one.scaling) for key, one in plain.items()
    }
    write_adapter(tmp_path / "a", base, lopsided)
    found = updates_by_role(read_adapter(tmp_path / "a"), base).updates
    for key, update in plain.items():
        assert_close(dense(found[key]), dense(update), torch.float16)


def test_provenance_and_card_are_beside_the_weights(pico, tmp_path):
    base = open_base(pico("llama"))
    write_adapter(
        tmp_path / "a", base, some_updates(base, (Role.q,)), provenance={"source_base": "old", "modules": [1]}
    )
    assert json.loads((tmp_path / "a" / "migration.json").read_text()) == {
        "source_base": "old",
        "modules": [1],
    }
    card = (tmp_path / "a" / "README.md").read_text()
    assert card.startswith("---\nbase_model: llama\n")
    assert "| source base | old |" in card


def test_verification_sees_what_is_wrong(pico, tmp_path):
    base, other = open_base(pico("llama")), open_base(pico("mistral"), name="another")
    write_adapter(tmp_path / "a", base, some_updates(base, (Role.q,)))
    assert verify_adapter(tmp_path / "a", base, expected=3).problems == ("2 of 3 modules landed",)
    assert verify_adapter(tmp_path / "a", other).problems == (
        "base_model_name_or_path is llama, not another",
    )
    wrong = verify_adapter(tmp_path / "a", open_base(pico("gpt2")), expected=2)
    assert wrong.landed == 0
    assert "wrong base" in wrong.problems[0] or "Give the base" in wrong.problems[0]
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(
        config.read_text().replace('"r": 8', '"r": 9').replace('"lora_alpha": 8', '"lora_alpha": 9')
    )
    assert "rank 9" in verify_adapter(tmp_path / "a", base).problems[0]
