"""LoRAs trained on rows: they learn, they are files PEFT loads, and the base is afterwards as before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cross_lora_core.adapters import read_adapter, read_tensors
from cross_lora_core.errors import ConfigurationError, TrainingDiverged
from cross_lora_core.evaluation import EvaluationRow, LoadedBase, row_losses
from cross_lora_core.storage import open_folder
from cross_lora_core.training import (
    LoraRecipe,
    TrainingRecipe,
    WeightedRow,
    train_adapter,
    weighted,
    weighted_losses,
)
from tests.support.pico_models import build_pico

LORA = LoraRecipe(rank=4, alpha=8, target_modules=("q_proj", "v_proj", "down_proj"))
RECIPE = TrainingRecipe(steps=20, batch=4, learning_rate=2e-2, warmup_steps=2)


def rows(first: int) -> list[EvaluationRow]:
    return [
        EvaluationRow(f"the cat {number} sat", f" on the mat in Paris {number % 10}")
        for number in range(first, first + 12)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pico("llama", tmp_path_factory.mktemp("bases") / "llama")


@pytest.fixture
def loaded(folder) -> LoadedBase:
    return LoadedBase(folder, torch.float32, torch.device("cpu"))


def train(loaded, out, **options):
    return train_adapter(loaded, rows(0), LORA, RECIPE, out, base_name="pico", **options)


def test_it_learns_what_holds_for_other_rows_and_leaves_the_base_as_it_was(loaded, tmp_path):
    before = {name: one.clone() for name, one in loaded.model.state_dict().items()}
    plain = row_losses(loaded, rows(20))
    run = train(loaded, tmp_path / "out")
    assert (run.steps, run.budget_ended) == (20, False)
    assert run.last_loss < 0.7 * run.first_loss
    after = loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert row_losses(loaded, rows(20)) == plain
    assert not loaded.spoiled
    assert not loaded.model.training
    with loaded.with_adapter(tmp_path / "out") as landing:
        learned = row_losses(loaded, rows(20))
    assert landing.complete
    assert landing.expected == 6
    assert sum(learned) < 0.7 * sum(plain)


def test_the_folder_is_a_peft_adapter(loaded, tmp_path):
    train(loaded, tmp_path / "out", dtype=torch.float32)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == ("pico", 4, 8)
    adapter = read_adapter(tmp_path / "out")
    assert (adapter.base_name, len(adapter.modules)) == ("pico", 6)
    assert not adapter.is_empty


def test_interrupted_and_resumed_is_the_same_adapter(folder, tmp_path):
    def tensors(name, **options):
        train(LoadedBase(folder, torch.float32, torch.device("cpu")), tmp_path / name, **options)
        return read_tensors(open_folder(tmp_path / name))

    def stop(done: int, _loss: float) -> None:
        if done == 13:
            raise KeyboardInterrupt

    whole = tensors("whole")
    with pytest.raises(KeyboardInterrupt):
        tensors("cut", checkpoint=tmp_path / "kept", tell=stop)
    assert not (tmp_path / "cut").exists()
    first = LoadedBase(folder, torch.float32, torch.device("cpu"))
    run = train(first, tmp_path / "cut", checkpoint=tmp_path / "kept", budget_seconds=0)
    assert run.budget_ended
    assert not (tmp_path / "cut").exists()  # it goes on from the checkpoint
    cut = tensors("cut", checkpoint=tmp_path / "kept")
    assert all(torch.equal(cut[name], whole[name]) for name in whole)


def test_without_a_checkpoint_a_budget_writes_what_there_is(loaded, tmp_path):
    run = train(loaded, tmp_path / "out", budget_seconds=0)
    assert (run.steps, run.budget_ended) == (1, True)
    assert not read_adapter(tmp_path / "out").is_empty


def test_dropout_and_a_bfloat16_base(folder, tmp_path):
    loaded = LoadedBase(folder, torch.bfloat16, torch.device("cpu"))
    lora = LoraRecipe(4, 4, ("q_proj",), dropout=0.5, rslora=True)
    run = train_adapter(loaded, rows(0), lora, RECIPE, tmp_path / "out", base_name="pico")
    assert run.last_loss < run.first_loss


def test_of_a_multiple_choice_the_right_completion_is_learned(loaded, tmp_path):
    choices = (" on the mat", " in the city of Paris")
    asked = [EvaluationRow(f"the dog {number}", choices[1], choices) for number in range(8)]
    train_adapter(loaded, asked, LORA, RECIPE, tmp_path / "out", base_name="pico")
    wrong = [EvaluationRow(row.prompt, choices[0]) for row in asked]
    gain = sum(row_losses(loaded, asked)) - sum(row_losses(loaded, wrong))
    with loaded.with_adapter(tmp_path / "out"):
        assert sum(row_losses(loaded, asked)) - sum(row_losses(loaded, wrong)) < gain - 1.0


def test_a_long_row_loses_its_beginning_first(loaded, tmp_path):
    long = [EvaluationRow("the cat sat " * 200, " on the mat")]
    run = train_adapter(loaded, long, LORA, RECIPE, tmp_path / "out", base_name="pico", longest=16)
    short = loaded.encode("the cat sat " * 200, special=True)
    completion = [*loaded.encode(" on the mat", special=False), loaded.tokenizer.eos_token_id]
    ids = torch.tensor([[*short[-(16 - len(completion)) :], *completion]])
    labels = ids.clone()
    labels[0, : -len(completion)] = -100
    with torch.inference_mode():
        expected = float(loaded.model(input_ids=ids, labels=labels).loss)
    assert run.first_loss == pytest.approx(expected, rel=1e-5)


def test_refusals(loaded, tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist yet"):
        train(loaded, tmp_path)
    with pytest.raises(ConfigurationError, match="at least one row"):
        train_adapter(loaded, [], LORA, RECIPE, tmp_path / "out", base_name="pico")
    nowhere = LoraRecipe(4, 4, ("no_such_proj",))
    with pytest.raises(ConfigurationError, match="no_such_proj"):
        train_adapter(loaded, rows(0), nowhere, RECIPE, tmp_path / "out", base_name="pico")
    assert not list(tmp_path.iterdir())


def test_what_diverges_is_not_written(loaded, tmp_path):
    loaded.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="step 1 of 20"):
        train(loaded, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_loss_is_the_weighted_mean_however_it_is_split(loaded, monkeypatch):
    row = [
        WeightedRow((1, 20, 30, 40, 50), (9.0, 0.0, 0.5, 0.0, 2.0)),
        WeightedRow((1, 60, 70), (0.0, 1.0, 0.0)),
        WeightedRow((1, 61, 71, 81), (0.0, 0.0, 0.0, 0.0)),
    ]
    with torch.inference_mode():
        expected = 0.0
        for one in row:
            scores = loaded.model(input_ids=torch.tensor([one.ids])).logits[0, :-1].log_softmax(-1)
            picked = -scores.gather(1, torch.tensor(one.ids[1:])[:, None])[:, 0]
            expected += float((picked * torch.tensor(one.weights[1:])).sum()) / 3.5
        together = [float(part) for part in weighted_losses(loaded, row)]
        monkeypatch.setattr(weighted, "LOGIT_BYTES", 1)
        apart = [float(part) for part in weighted_losses(loaded, row)]
    assert (len(together), len(apart)) == (1, 3)
    assert sum(together) == pytest.approx(expected, rel=1e-5)
    assert sum(apart) == pytest.approx(expected, rel=1e-5)
