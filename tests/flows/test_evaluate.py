"""`cross-lora evaluate` on pico models, and the catalog's cache behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from cross_lora_core.evaluation import EvaluationRow, loaded_base, read_rows, row_losses
from flows.cli import app
from tests.support.fleets import make_adapter, write_rows
from tests.support.pico_models import build_pico
from tests.support.trained import memorise

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pico("llama", tmp_path_factory.mktemp("evaluate") / "pico-llama")


@pytest.fixture(scope="module")
def adapters(base: Path) -> Path:
    """Two adapters, the second half as strong as the first."""
    folder = base.parent / "adapters"
    write_rows(make_adapter(base, folder / "strong", seed=1))
    tensors = load_file(folder / "strong" / "adapter_model.safetensors")
    (folder / "weak").mkdir()
    config = (folder / "strong" / "adapter_config.json").read_text()
    (folder / "weak" / "adapter_config.json").write_text(config)
    halved = {name: one * (0.5 if "lora_B" in name else 1.0) for name, one in tensors.items()}
    save_file(halved, folder / "weak" / "adapter_model.safetensors")
    return folder


@pytest.fixture
def rows(adapters: Path) -> Path:
    return adapters / "strong" / "evaluation.jsonl"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def answer(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def measured(base: Path, adapter: Path | None, rows: Path) -> list[float]:
    with (
        loaded_base(base, str(base), torch.float32, torch.device("cpu")) as loaded,
        loaded.with_adapter(adapter),
    ):
        return row_losses(loaded, read_rows(rows))


def test_a_base_alone(base, rows):
    found = answer("--base", base, "--rows", rows)
    losses = torch.tensor(measured(base, None, rows), dtype=torch.float64)
    (alone,) = found["results"]
    assert (found["base"], found["rows"], alone["adapter"]) == ("pico-llama", 10, None)
    loss = alone["figures"]["loss"]
    assert loss["mean"] == pytest.approx(float(losses.mean()))
    assert loss["standard_error"] == pytest.approx(float(losses.std()) / 10**0.5)
    assert alone["figures"]["improvement"] is None
    assert "± 0." in run("--base", base, "--rows", rows).stdout


def test_adapters_beside_the_base(base, adapters, rows):
    found = answer("--base", base, "--rows", rows, "--adapter", adapters)
    assert [one["adapter"] for one in found["results"]] == [None, "strong", "weak"]
    before, after = measured(base, None, rows), measured(base, adapters / "weak", rows)
    improvement = found["results"][2]["figures"]["improvement"]
    assert improvement["mean"] == pytest.approx((sum(before) - sum(after)) / 10)
    assert improvement["low"] < improvement["mean"] < improvement["high"]
    assert found["results"][2]["figures"]["gap"] is None


def test_what_was_measured_is_not_run_again(base, adapters, rows, monkeypatch):
    arguments = ("--base", base, "--rows", rows, "--adapter", adapters / "weak")
    first = answer(*arguments)

    def no_model(*_arguments: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr("tasks.evaluate_adapter.loaded_base", no_model)
    assert answer(*arguments) == first
    with pytest.raises(pytest.fail.Exception):
        run(*arguments, "--adapter", adapters / "strong").exit_code  # noqa: B018


def test_what_another_environment_measured_is_not_reused(base, rows, monkeypatch):
    answer("--base", base, "--rows", rows)
    counted = []
    monkeypatch.setattr("tasks.evaluate_adapter.environment", lambda device: f"{device.type}, torch 9")
    monkeypatch.setattr(
        "tasks.evaluate_adapter.row_losses", lambda *given: counted.append(1) or row_losses(*given)
    )
    for _ in range(2):
        answer("--base", base, "--rows", rows)
    assert len(counted) == 1


def answers(tmp_path: Path, base: Path, adapter: Path) -> Path:
    """Rows that an adapter makes likelier: on each, the completion of several that it gains most on."""
    lines = []
    for start in ("the cat", "the dog", "Paris is", "42 and", "sat on", "the mat", "the city", "in Paris"):
        texts = [f" {word} {number}" for word in ("cat", "mat", "city", "the") for number in range(3)]
        file = tmp_path / "candidates.jsonl"
        file.write_text("\n".join(json.dumps({"prompt": start, "completion": text}) for text in texts))
        gains = torch.tensor(measured(base, None, file)) - torch.tensor(measured(base, adapter, file))
        lines.append({"prompt": start, "choices": texts, "answer": int(gains.argmax())})
    path = tmp_path / "choices.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_the_gap_and_the_accuracy(tmp_path, base, adapters):
    rows = answers(tmp_path, base, adapters / "strong")
    arguments = ("--base", base, "--rows", rows, "--adapter", adapters / "weak")
    found = answer(*arguments, "--trained", adapters / "strong")
    none, weak, strong = found["results"]
    assert [one["trained"] for one in found["results"]] == [False, False, True]
    share = weak["figures"]["gap"]["share"]
    assert 0 < share["low"] < share["mean"] < share["high"] < 1
    gains = [none["figures"]["loss"]["mean"] - one["figures"]["loss"]["mean"] for one in (weak, strong)]
    assert share["mean"] == pytest.approx(gains[0] / gains[1])
    assert strong["figures"]["gap"] is None
    assert none["figures"]["accuracy"]["n"] == 8
    assert weak["figures"]["accuracy"]["gap"] is not None
    assert strong["figures"]["accuracy"]["mean"] >= none["figures"]["accuracy"]["mean"]
    shown = run(*arguments, "--trained", adapters / "strong").output
    assert "gap recovered" in shown
    assert "accuracy" in shown
    assert "what strong, trained on this base, gains" in shown


def test_a_trained_adapter_without_gain_is_no_measure(base, adapters, rows):
    found = answer(
        "--base", base, "--rows", rows, "--adapter", adapters / "weak", "--trained", adapters / "strong"
    )
    assert found["results"][1]["figures"]["gap"]["share"] is None
    assert "cannot be told from chance" in found["results"][1]["figures"]["gap"]["reason"]


@pytest.fixture(scope="module")
def learned(base: Path) -> Path:
    """Adapters that know 5 and all of 10 rows by heart, and the rows."""
    folder = base.parent / "learned"
    beginnings = ("cat", "dog", "mat", "city", "Paris")
    known = [EvaluationRow(f"{a} {b}", f" {b} to {a}") for a in ("the", "of") for b in beginnings]
    memorise(base, folder / "half", known[::2])
    memorise(base, folder / "all", known)
    told = [json.dumps({"prompt": row.prompt, "completion": row.completion}) for row in known]
    (folder / "rows.jsonl").write_text("\n".join(told))
    return folder


def test_exact_matches_of_generated_text(base, learned, monkeypatch):
    arguments = ("--base", base, "--rows", learned / "rows.jsonl", "--adapter", learned / "half")
    assert answer(*arguments)["results"][0]["exact_match"] is None
    none, half, whole = answer(*arguments, "--trained", learned / "all", "--generate")["results"]
    assert (none["exact_match"]["mean"], none["exact_match"]["n"]) == (0.0, 10)
    assert none["exact_match"]["improvement"] is None
    assert whole["exact_match"]["mean"] == 1.0
    assert whole["exact_match"]["gap"] is None
    share = half["exact_match"]["mean"]
    assert 0.5 <= share < 1
    assert half["exact_match"]["standard_error"] == pytest.approx((share * (1 - share) / 9) ** 0.5)
    improvement, gap = half["exact_match"]["improvement"], half["exact_match"]["gap"]["share"]
    assert improvement["mean"] == gap["mean"] == pytest.approx(share)
    assert 0 <= improvement["low"] < share < improvement["high"] <= 1
    monkeypatch.setattr("tasks.evaluate_adapter.loaded_base", None)  # what was measured is not run again
    shown = run(*arguments, "--trained", learned / "all", "--generate").output
    assert "exact match 100.0 ± 0.0 %" in " ".join(shown.split())


def test_a_benchmark_is_scored_by_the_harness_too(tmp_path, base, adapters, monkeypatch):
    texts = [f"{word} {number}" for word in ("cat", "mat", "city", "the") for number in range(3)]
    questions = ("the cat", "the dog", "Paris is", "42 and", "sat on", "the mat", "the city", "in Paris")
    asked = [{"question": one, "choices": texts, "answer": n} for n, one in enumerate(questions)]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, asked)))
    arguments = ("--base", base, "--rows", rows, "--adapter", adapters / "strong", "--benchmark", "arc_easy")
    found = answer(*arguments)
    assert found["harness"].startswith("lm-eval 0.4")
    for one in found["results"]:
        ours = [one["figures"]["accuracy"], one["figures"]["normalised_accuracy"]]
        assert [one["benchmark"]["acc"], one["benchmark"]["acc_norm"]] == ours
    assert found["results"][1]["benchmark"]["acc"]["improvement"] is not None
    with monkeypatch.context() as patched:
        patched.setattr("tasks.evaluate_adapter.loaded_base", None)  # what was measured is not run again
        assert answer(*arguments) == found
    assert "lm-eval acc_norm" in run(*arguments).output
    rows.write_text("\n".join(json.dumps(one | {"answer": 11 - one["answer"]}) for one in asked))
    others = answer(*arguments)["results"]
    assert [one["benchmark"]["acc"] for one in others] == [one["figures"]["accuracy"] for one in others]
    assert [one["benchmark"] for one in others] != [one["benchmark"] for one in found["results"]]


def test_choices_alone_are_not_generated(tmp_path, base):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "the cat", "choices": [" sat", " is"], "answer": 0}))
    result = run("--base", base, "--rows", rows, "--generate")
    assert result.exit_code == 1
    assert "multiple choice alone" in result.output


def test_the_first_rows_only(base, rows):
    found = answer("--base", base, "--rows", rows, "--limit", 1)
    assert found["rows"] == 1
    assert found["results"][0]["figures"]["loss"]["standard_error"] is None


def test_an_adapter_of_another_base_is_refused(tmp_path, base, rows):
    other = build_pico("gpt2", tmp_path / "other")
    adapter = make_adapter(other, tmp_path / "adapter", target_modules=["c_attn"], fan_in_fan_out=True)
    result = run("--base", base, "--rows", rows, "--adapter", adapter)
    assert result.exit_code == 1
    assert "AdapterRefused" in result.output
    assert "measuring" not in result.output


def test_an_adapter_that_does_not_land_is_refused(tmp_path, base, adapters, rows):
    adapter = tmp_path / "lost"
    adapter.mkdir()
    config = (adapters / "strong" / "adapter_config.json").read_text()
    (adapter / "adapter_config.json").write_text(config)
    tensors = load_file(adapters / "strong" / "adapter_model.safetensors")
    half = {name: one for name, one in tensors.items() if "layers.1." not in name}
    save_file(half, adapter / "adapter_model.safetensors")
    result = run("--base", base, "--rows", rows, "--adapter", adapter)
    assert result.exit_code == 1
    assert "AdapterRefused" in result.output
    assert "got 4 that landed, and 4 of PEFT's own left without weights" in " ".join(result.output.split())


def test_only_one_adapter_is_the_measure(base, adapters, rows):
    result = run("--base", base, "--rows", rows, "--trained", adapters)
    assert result.exit_code == 1
    assert "expected one adapter" in result.output
