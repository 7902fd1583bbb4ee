"""lm-evaluation-harness beside our own scores, row by row."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation import (
    BENCHMARKS,
    benchmark_hits,
    benchmark_rows,
    each_choice,
    loaded_base,
    row_losses,
)
from cross_lora_core.evaluation.choices import hits, normalised_hits
from tests.support.fleets import make_adapter
from tests.support.pico_models import WORDS, build_pico

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 questions of words that a pico model knows, some of them no question, choices of unequal length."""
    drawn = random.Random(0)
    path = tmp_path_factory.mktemp("benchmarks") / "rows.jsonl"

    def words(most: int) -> str:
        return " ".join(drawn.choices(WORDS, k=drawn.randint(1, most)))

    rows = [
        {
            "id": f"row-{number}",
            "question": words(12) + drawn.choice(["?", "", "."]),
            "choices": [words(5) for _ in range(4)],
            "answer": drawn.randrange(4),
        }
        for number in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "opt"])
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_harness_and_we_agree_row_by_row(questions, family, benchmark, tmp_path):
    folder = build_pico(family, tmp_path / family)
    rows = benchmark_rows(str(questions), benchmark)
    with loaded_base(folder, str(folder), torch.float32, CPU) as loaded:
        theirs, losses = benchmark_hits(loaded, benchmark, rows), row_losses(loaded, each_choice(rows))
    assert theirs == {"acc": hits(rows, losses), "acc_norm": normalised_hits(rows, losses)}
    assert 0 < sum(theirs["acc"]) < 40
    assert theirs["acc"] != theirs["acc_norm"]


def test_with_an_adapter_on_too(base, questions, tmp_path):
    adapter = make_adapter(base, tmp_path / "adapter", strength=0.5)
    rows = benchmark_rows(str(questions), "arc_easy")
    with loaded_base(base, str(base), torch.float32, CPU) as loaded:
        before = benchmark_hits(loaded, "arc_easy", rows)
        with loaded.with_adapter(adapter):
            theirs, losses = benchmark_hits(loaded, "arc_easy", rows), row_losses(loaded, each_choice(rows))
        assert benchmark_hits(loaded, "arc_easy", rows) == before
    assert theirs["acc"] == hits(rows, losses) != before["acc"]


def test_a_benchmark_puts_questions_its_own_way(questions):
    first = json.loads(questions.read_text().splitlines()[0])
    arc, hellaswag = (benchmark_rows(str(questions), one)[0] for one in ("arc_challenge", "hellaswag"))
    assert arc.prompt == f"Question: {first['question']}\nAnswer:"
    assert hellaswag.prompt == first["question"]
    assert arc.choices == hellaswag.choices == tuple(f" {one}" for one in first["choices"])


@pytest.mark.parametrize(
    "row", [{"prompt": "a", "completion": "b"}, {"prompt": "a", "choices": ["b", "c"], "answer": 0}]
)
def test_rows_of_another_form_are_refused(tmp_path, row):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(ConfigurationError, match="expected question, choices and answer"):
        benchmark_rows(str(path), "openbookqa")


def test_an_unknown_benchmark_is_named(questions):
    with pytest.raises(ConfigurationError, match=r"expected one of arc_challenge.*, got mmlu"):
        benchmark_rows(str(questions), "mmlu")


def test_without_the_harness_the_extra_is_named(questions, monkeypatch):
    monkeypatch.setattr("cross_lora_core.evaluation.benchmarks.find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match=r"cross-lora-fleet\[lm-eval\]"):
        benchmark_rows(str(questions), "arc_easy")
