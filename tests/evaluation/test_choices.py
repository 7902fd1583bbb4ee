from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation import (
    EvaluationRow,
    dataset_digest,
    each_choice,
    figures,
    loaded_base,
    read_rows,
    row_losses,
)
from tests.support.testbed import TESTBED, needs_testbed, real_base

CPU = torch.device("cpu")
TOWNS = ("Paris", "Rome", "Bern")


def read_one(folder: Path, **fields: object) -> EvaluationRow:
    file = folder / "rows.jsonl"
    file.write_text(json.dumps(fields))
    (row,) = read_rows(file)
    return row


@pytest.mark.parametrize("answer", [1, "B", "b", "Rome"])
def test_the_answer_is_a_number_a_letter_or_a_text(tmp_path, answer):
    row = read_one(tmp_path, question="Which town?", choices=TOWNS, answer=answer)
    assert row == EvaluationRow("Question: Which town?\nAnswer:", " Rome", (" Paris", " Rome", " Bern"))


def test_a_text_goes_before_a_letter(tmp_path):
    assert read_one(tmp_path, question="x", choices=["C", "A", "B"], answer="A").completion == " A"


def test_a_beginning_is_continued_and_a_prompt_taken_as_it_is(tmp_path):
    assert read_one(tmp_path, question="He sat on", choices=TOWNS, answer=0).prompt == "He sat on"
    given = read_one(tmp_path, prompt="Which town?", choices=TOWNS, answer=0)
    assert given == EvaluationRow("Which town?", "Paris", TOWNS)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"answer": 3}, "one of 3 choices, got 3"),
        ({"answer": -1}, "one of 3 choices"),
        ({"answer": True}, "one of 3 choices"),
        ({"answer": "Oslo"}, "one of 3 choices, got 'Oslo'"),
        ({"answer": "?"}, "one of 3 choices"),
        ({"answer": None}, "one of 3 choices, got None"),
        ({"choices": ["Paris"]}, "two or more"),
        ({"choices": ["Paris", ""]}, "none empty"),
        ({"choices": "Paris"}, "two or more"),
        ({"question": 3}, "either question or prompt"),
        ({"prompt": "and this"}, "either question or prompt"),
    ],
)
def test_bad_choices_are_named(tmp_path, changed, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_one(tmp_path, **({"question": "Which?", "choices": TOWNS, "answer": 0} | changed))
    assert "rows.jsonl:1" in str(caught.value)


ROWS = (
    EvaluationRow("p", "bb", ("a", "bb", "cccc")),
    EvaluationRow("q", "x"),
    EvaluationRow("r", "a", ("a", "bb")),
)


def test_figures_of_choices_are_those_of_the_right_ones():
    losses = [1.5, 1.0, 0.45, 3.0, 0.7, 0.5]  # "a" likeliest of all, "cccc" per character; then "a", "bb"
    found = figures(ROWS, losses)
    assert found.loss.mean == pytest.approx((1.0 + 3.0 + 0.7) / 3)
    assert (found.loss.n, found.accuracy.n) == (3, 2)
    assert found.accuracy.mean == 0.5  # 1.5 < 2.0 is wrong, 0.7 < 1.0 is right
    assert found.normalised_accuracy.mean == 0.0
    assert found.improvement is None


def test_spaces_before_a_choice_do_not_count_in_its_length():
    row = EvaluationRow("p", " a", (" a", " bbb"))
    # summed 1.0 and 2.4: per letter 1.0 and 0.8, but with the space 0.5 and 0.6
    assert figures([row], [0.5, 0.6]).normalised_accuracy.mean == 0.0
    assert figures([row], [0.5, 0.6]).accuracy.mean == 1.0


def test_an_undefined_loss_is_no_right_answer():
    for losses in ([float("nan"), 0.5], [0.5, float("nan")], [float("nan")] * 2):
        assert figures([EvaluationRow("p", "a", ("a", "b"))], losses).accuracy.mean == 0.0


def test_a_file_without_choices_has_no_accuracy():
    found = figures([EvaluationRow("p", "x")] * 2, [1.0, 2.0], [2.0, 3.0])
    assert found.accuracy is None
    assert found.improvement is not None
    assert (found.improvement.low, found.improvement.high) == (1.0, 1.0)


def test_an_adapter_is_compared_row_by_row():
    rows = [EvaluationRow(f"p{number}", "a", ("a", "b")) for number in range(40)]
    base = [loss for number in range(40) for loss in (1.0 + 0.01 * number, 1.105)]
    better = [loss - (0.5 if number % 2 == 0 else 0.0) for number, loss in enumerate(base)]
    half = [loss - (0.25 if number % 2 == 0 else 0.0) for number, loss in enumerate(base)]
    found = figures(rows, half, base, better)
    assert found.improvement.mean == pytest.approx(0.25)
    assert found.gap.share.mean == pytest.approx(0.5)
    assert found.accuracy.mean == 36 / 40
    assert found.accuracy.improvement.mean == pytest.approx((36 - 11) / 40)
    assert found.accuracy.improvement.low > 0
    share = found.accuracy.gap.share
    assert share.mean == pytest.approx(25 / 29)  # of 29 answers that all of the change turns
    assert share.low < share.mean < share.high
    unchanged = figures(rows, half, base, base).accuracy.gap
    assert unchanged.share is None
    assert "cannot be told from chance" in unchanged.reason
    assert figures(rows, half, base, base).gap.share is None


def test_the_losses_of_choices_in_batches_are_those_one_by_one(base):
    rows = [
        EvaluationRow("the cat", " sat", (" on the mat", " sat", " in Paris")),
        EvaluationRow("the dog sat on", " the mat", (" the mat", " Paris")),
        EvaluationRow("", "the mat"),
    ]
    with loaded_base(base, str(base), torch.float32, CPU) as loaded:
        together = row_losses(loaded, each_choice(rows))
        alone = [row_losses(loaded, [one])[0] for one in each_choice(rows)]
        of_rows = row_losses(loaded, rows)
    assert together == pytest.approx(alone, rel=1e-5)
    assert figures(rows, together).loss.mean == pytest.approx(sum(of_rows) / 3, rel=1e-5)


def test_wrong_choices_do_not_change_what_is_measured_for_a_verdict():
    plain = tuple(EvaluationRow(row.prompt, row.completion) for row in ROWS)
    assert dataset_digest(ROWS) == dataset_digest(plain)
    assert dataset_digest(each_choice(ROWS)) != dataset_digest(plain)


@needs_testbed
@pytest.mark.testbed
def test_a_real_base_answers_better_than_chance():
    """20 questions of ARC-Easy with 4 choices: 25 % by guessing."""
    rows = read_rows(TESTBED / "benchmarks" / "arc_easy.test.jsonl")[:20]
    folder = real_base("smollm2-135m")
    with loaded_base(folder, str(folder), torch.float32, CPU) as loaded:
        found = figures(rows, row_losses(loaded, each_choice(rows)))
    assert found.accuracy.n == 20
    assert found.accuracy.mean - 2 * found.accuracy.standard_error > 0.25
    assert 0.3 < found.normalised_accuracy.mean < 0.9
