from __future__ import annotations

import pytest
import torch

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation import EvaluationRow, dataset_digest, paired_bootstrap, read_rows


def test_rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(
        '{"prompt": "a", "completion": "b", "id": 1}\n\n{"completion": "été"}\n', encoding="utf-8"
    )
    rows = read_rows(file)
    assert rows == (EvaluationRow("a", "b"), EvaluationRow("", "été"))
    assert dataset_digest(rows) != dataset_digest(rows[:1])
    file.write_text('{"completion":"b","prompt":"a"}\n{"prompt":"","completion":"été"}\n', encoding="utf-8")
    assert dataset_digest(read_rows(file)) == dataset_digest(rows)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "at least one row"),
        ("{", r"rows.jsonl:1"),
        ('{"completion": "x"}\n[1]', r"got list \(in .*rows.jsonl:2"),
        ('{"prompt": "a"}', r"fields \['prompt'\]"),
        ('{"prompt": "a", "completion": ""}', "not empty"),
        ('{"prompt": 3, "completion": "x"}', "as texts"),
    ],
)
def test_bad_rows_are_named_by_line(tmp_path, text, words):
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        read_rows(file)


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigurationError, match="absent"):
        read_rows(tmp_path / "absent")


def test_the_bootstrap_is_deterministic_and_brackets_the_mean():
    values = [0.1, 0.4, -0.2, 0.3, 0.25]
    first = paired_bootstrap(values)
    assert first == paired_bootstrap(values)
    assert first.low < first.mean < first.high
    wider = paired_bootstrap(values, confidence=0.99)
    assert wider.low < first.low
    assert wider.high > first.high


def test_no_spread_is_no_interval():
    interval = paired_bootstrap([0.5] * 4)
    assert (interval.low, interval.mean, interval.high) == (0.5, 0.5, 0.5)


def test_nothing_cannot_be_resampled():
    with pytest.raises(ValueError, match="at least one"):
        paired_bootstrap([])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    covered = 0
    for _ in range(300):
        interval = paired_bootstrap((torch.randn(40, generator=generator) + 0.3).tolist(), draws=500)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.89 <= covered / 300 <= 0.98


def test_a_row_that_is_repeated_counts_once(tmp_path):
    file = tmp_path / "evaluation.jsonl"
    file.write_text('{"completion": "a"}\n' * 8 + '{"prompt": "", "completion": "a"}\n{"completion": "b"}\n')
    assert [row.completion for row in read_rows(file)] == ["a", "b"]
