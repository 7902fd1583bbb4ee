"""Exact match: against the plainest loop, alone and in batches, and on an adapter that knows the answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cross_lora_core.evaluation import EvaluationRow, exact_matches, generated_texts, loaded_base
from tests.support.pico_models import PICO_FAMILIES, build_pico
from tests.support.trained import memorise

CPU = torch.device("cpu")
KNOWN = [
    EvaluationRow("the cat", " sat on the mat"),
    EvaluationRow("the dog in Paris is", " été!\n 42 and the city\n"),
    EvaluationRow("", "42 "),
    EvaluationRow("to the city of the dog and the cat", " in Paris<eos>"),
]


def opened(base: Path):
    return loaded_base(base, str(base), torch.float32, CPU)


def plainly_written(folder: Path, prompt: str, tokens: int) -> str:
    """One row, no padding, no cache."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(prompt).input_ids
    start = len(ids)
    while len(ids) < start + tokens:
        with torch.inference_mode():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in tokenizer.all_special_ids:
            ids.pop()
            break
    return tokenizer.decode(ids[start:])


@pytest.mark.parametrize("family", PICO_FAMILIES)
def test_rows_in_a_batch_are_written_as_one_by_one_and_as_by_hand(tmp_path, family):
    folder = build_pico(family, tmp_path / family)
    rows = [EvaluationRow("the cat sat on " * number, " Paris" * (1 + number % 4)) for number in range(1, 12)]
    with opened(folder) as loaded:
        together = generated_texts(loaded, rows)
        alone = [generated_texts(loaded, [one])[0] for one in rows]
    assert together == alone
    by_hand = [plainly_written(folder, one.prompt, 2 * (1 + n % 4) + 8) for n, one in enumerate(rows, 1)]
    assert [one.strip() for one in together] == [one.lstrip().split("\n")[0].strip() for one in by_hand]


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return memorise(base, tmp_path_factory.mktemp("adapters") / "known", KNOWN)


def test_what_was_learned_by_heart_is_a_match(base, adapter):
    with opened(base) as loaded:
        assert exact_matches(loaded, KNOWN) == [0.0] * 4
        with loaded.with_adapter(adapter):
            assert exact_matches(loaded, KNOWN) == [1.0] * 4
            assert [exact_matches(loaded, [one]) for one in KNOWN] == [[1.0]] * 4


@pytest.mark.parametrize(
    "completion", [" sat on the", " sat on the mat and", " sat\n on the mat", "sat on  the mat"]
)
def test_nearly_right_is_no_match(base, adapter, completion):
    with opened(base) as loaded, loaded.with_adapter(adapter):
        assert exact_matches(loaded, [EvaluationRow("the cat", completion)]) == [0.0]
        assert exact_matches(loaded, [EvaluationRow("the cat", "sat on the mat\n\n")]) == [1.0]


def test_what_comes_after_the_lines_of_the_completion_does_not_count(base, tmp_path):
    """An adapter that goes on in another line is right where one line was wanted, wrong where two were."""
    goes_on = memorise(base, tmp_path / "goes_on", [EvaluationRow("the cat", " sat on\nthe mat")])
    with opened(base) as loaded, loaded.with_adapter(goes_on):
        wanted = [" sat on", " sat on\nthe mat", " sat on\nthe", " sat on\nthe mat\nin Paris"]
        assert exact_matches(loaded, [EvaluationRow("the cat", one) for one in wanted]) == [
            1.0,
            1.0,
            0.0,
            0.0,
        ]


def test_what_a_folder_says_about_conversations_is_not_followed(base, adapter, tmp_path):
    folder = tmp_path / "chatty"
    folder.mkdir()
    for file in base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    told = {
        "repetition_penalty": 50.0,
        "no_repeat_ngram_size": 1,
        "min_length": 100,
        "do_sample": True,
        "temperature": 9.0,
    }
    (folder / "generation_config.json").write_text(json.dumps(told))
    with opened(folder) as loaded, loaded.with_adapter(adapter):
        assert exact_matches(loaded, KNOWN) == [1.0] * 4


def test_a_prompt_longer_than_the_model_can_read(base):
    rows = [EvaluationRow("cat " * 300, " mat"), EvaluationRow("the cat", " mat")]
    with opened(base) as loaded:
        assert exact_matches(loaded, rows) == [0.0, 0.0]
