"""Real (pico) models through PEFT: known truth in, right verdict out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation import (
    EvaluationRow,
    Evidence,
    Losses,
    Verdict,
    check_function,
    decide,
    environment,
    loaded_base,
    row_losses,
)
from tests.support.fleets import make_adapter
from tests.support.pico_models import build_pico

CPU = torch.device("cpu")
ROWS = [EvaluationRow(f"the cat {number} sat", f" on the mat in Paris {number}") for number in range(12)]


def opened(base: Path):
    return loaded_base(base, str(base), torch.float32, CPU)


def measure(base: Path, adapter: Path | None) -> list[float]:
    with opened(base) as loaded, loaded.with_adapter(adapter):
        return row_losses(loaded, ROWS)


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that really lowers the loss on rows like `ROWS`."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    for number in range(60):
        text = f"the cat {number + 20} sat on the mat in Paris {number + 20}"
        ids = torch.tensor([tokenizer(text).input_ids])
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    folder = tmp_path_factory.mktemp("adapters") / "trained"
    model.save_pretrained(folder)
    return folder


def changed(folder: Path, target: Path, change) -> Path:
    """A copy of an adapter with its lora_B changed."""
    target.mkdir()
    (target / "adapter_config.json").write_text((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: change(name, one) for name, one in tensors.items()}, target / "adapter_model.safetensors"
    )
    return target


def verdict_of(base: Path, adapter: Path, trained: Path, scratch: Path) -> Verdict:
    drawn = torch.Generator().manual_seed(1)

    def shuffle(name: str, one: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(one.shape, generator=drawn)
        return noise * one.norm() / noise.norm()

    zero = changed(trained, scratch / "zero", lambda name, one: one * (0.0 if "lora_B" in name else 1.0))
    random = changed(adapter, scratch / "random", shuffle)
    with opened(base) as loaded:
        check = check_function(loaded, adapter)
    labels = {
        "target": None,
        "zero": zero,
        "random": random,
        "migrated": adapter,
        "source": None,
        "source_adapter": trained,
    }
    measured = Losses(**{label: measure(base, folder) for label, folder in labels.items()})
    return decide(Evidence((), check, measured)).verdict


def test_known_truths(base, trained, tmp_path):
    def scaled(factor: float, name: str) -> Path:
        return changed(trained, tmp_path / name, lambda key, one: one * (factor if "lora_B" in key else 1.0))

    cases = {
        "itself": (trained, Verdict.migrated),
        "negated": (scaled(-1.0, "negated"), Verdict.harmful),
        "emptied": (scaled(0.0, "emptied"), Verdict.no_effect),
    }
    for name, (folder, expected) in cases.items():
        (tmp_path / f"run-{name}").mkdir()
        assert verdict_of(base, folder, trained, tmp_path / f"run-{name}") is expected, name


def test_a_wrong_prefix_loads_without_error_and_is_found_out(base, trained, tmp_path):
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "adapter_config.json").write_text((trained / "adapter_config.json").read_text())
    tensors = load_file(trained / "adapter_model.safetensors")
    renamed = {name.replace("model.layers", "decoder.layers"): one for name, one in tensors.items()}
    save_file(renamed, folder / "adapter_model.safetensors")
    with opened(base) as loaded:
        check = check_function(loaded, folder)
    assert (check.landing.landed, check.landing.expected) == (0, 6)
    assert check.landing.untouched == 6
    assert not check.changed
    assert decide(Evidence((), check, None)).verdict is Verdict.failed


def test_a_missing_module_is_found_out(base, trained, tmp_path):
    tensors = load_file(trained / "adapter_model.safetensors")
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "adapter_config.json").write_text((trained / "adapter_config.json").read_text())
    save_file(
        {name: one for name, one in tensors.items() if "layers.0" in name},
        folder / "adapter_model.safetensors",
    )
    with opened(base) as loaded:
        assert check_function(loaded, folder).landing == type(check_function(loaded, folder).landing)(3, 3, 3)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_the_base_is_restored_bit_for_bit(tmp_path, family):
    folder = build_pico(family, tmp_path / family)
    modules = ["c_attn"] if family == "gpt2" else ["q_proj", "v_proj"]
    adapter = make_adapter(folder, tmp_path / "a", target_modules=modules, fan_in_fan_out=family == "gpt2")
    before, with_adapter, after = measure(folder, None), measure(folder, adapter), measure(folder, None)
    assert before == after
    assert before != with_adapter


def test_the_loss_is_the_models_own(base):
    row = ROWS[0]
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    prompt = tokenizer(row.prompt).input_ids
    ids = prompt + tokenizer(row.completion, add_special_tokens=False).input_ids
    labels = [-100] * len(prompt) + ids[len(prompt) :]
    with torch.inference_mode():
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
    expected = float(loss) * (len(ids) - len(prompt)) / len(row.completion)
    assert measure(base, None)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "family", ["llama", "gemma3_text", "gpt2", "opt", "bloom", "falcon", "gpt_neox", "qwen3"]
)
def test_rows_do_not_disturb_each_other_in_a_batch(tmp_path, monkeypatch, family):
    folder = build_pico(family, tmp_path / family)
    rows = [
        EvaluationRow("the cat " * number, "sat on the mat " * (1 + number % 3)) for number in range(1, 12)
    ]
    with opened(folder) as loaded:
        together = row_losses(loaded, rows)
        monkeypatch.setattr("cross_lora_core.evaluation.losses.BATCH_ROWS", 1)
        assert row_losses(loaded, rows) == pytest.approx(together, rel=1e-5)
        monkeypatch.setattr("cross_lora_core.evaluation.losses.BATCH_ROWS", 8)
        monkeypatch.setattr("cross_lora_core.evaluation.losses.LOGIT_BYTES", 1)
        assert row_losses(loaded, rows) == pytest.approx(together, rel=1e-5)


def test_an_empty_prompt_and_a_long_one(base):
    with opened(base) as loaded:
        empty, cut = row_losses(loaded, [EvaluationRow("", "the mat"), EvaluationRow("cat " * 200, "mat")])
    assert empty > 0
    assert cut > 0


def test_a_completion_that_does_not_fit_is_refused(base):
    with opened(base) as loaded, pytest.raises(ConfigurationError, match="the row that begins"):
        row_losses(loaded, [EvaluationRow("a", "zebra " * 200)])


@pytest.mark.parametrize("more", [{"modules_to_save": ["lm_head"]}, {"bias": "all"}])
def test_an_adapter_that_trained_more_than_lora_leaves_nothing_behind(tmp_path: Path, more: dict):
    folder = build_pico("qwen2", tmp_path / "qwen2")
    adapter = make_adapter(folder, tmp_path / "adapter", target_modules=["q_proj"], **more)
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor + 0.5 for name, tensor in load_file(file).items()}, file)
    before, with_it, after = measure(folder, None), measure(folder, adapter), measure(folder, None)
    assert before == after
    assert before != with_it


def test_an_adapter_that_cannot_be_loaded_leaves_nothing_behind(base: Path, tmp_path: Path):
    adapter = make_adapter(base, tmp_path / "adapter")
    before = measure(base, None)
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor[:, :3].contiguous() for name, tensor in load_file(file).items()}, file)
    with pytest.raises(RuntimeError):
        measure(base, adapter)
    assert measure(base, None) == before


def test_a_legacy_file_is_measured_too(base: Path, trained: Path, tmp_path: Path):
    legacy = tmp_path / "legacy"
    legacy.mkdir()
    (legacy / "adapter_config.json").write_text((trained / "adapter_config.json").read_text())
    torch.save(load_file(trained / "adapter_model.safetensors"), legacy / "adapter_model.bin")
    assert measure(base, legacy) == measure(base, trained)


def test_undefined_scores_are_no_verdict(base: Path, tmp_path: Path):
    adapter = make_adapter(base, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor * 1e30 for name, tensor in load_file(file).items()}, file)
    with opened(base) as loaded:
        check = check_function(loaded, adapter)
    decision = decide(Evidence((), check, None))
    assert decision.verdict is Verdict.failed
    assert "not finite" in decision.reason


def test_the_environment_names_device_threads_and_versions(monkeypatch):
    named = environment(CPU)
    assert re.match(r"cpu [A-Z0-9_]+, \d+ threads?, torch ", named)
    assert torch.__version__.split("+")[0] in named
    assert "transformers 5" in named
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert ", 77 threads, " in environment(CPU) != named
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"model {device.index}")
    assert environment(torch.device("cuda", 1)).startswith("cuda model 1, torch ")
