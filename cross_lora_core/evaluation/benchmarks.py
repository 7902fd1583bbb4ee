"""Published benchmarks, counted by lm-evaluation-harness itself on files of this machine.

The harness is the instrument that published figures were taken with. Its own tasks fetch their data from a
hub; here the same prompts and metrics are declared over rows that were read. Needs the extra `lm-eval`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation.loading import LoadedBase
from cross_lora_core.evaluation.rows import EvaluationRow, read_rows

__all__ = ["BENCHMARKS", "BENCHMARK_METRICS", "benchmark_hits", "benchmark_rows", "harness"]

BENCHMARKS = {
    "arc_challenge": "Question: {}\nAnswer:",
    "arc_easy": "Question: {}\nAnswer:",
    "hellaswag": "{}",
    "openbookqa": "{}",
}
"""How the harness puts the question of each benchmark; a choice follows after one space."""

BENCHMARK_METRICS = ("acc", "acc_norm")
"""Likeliest choice, and likeliest per character."""

BATCH_ROWS = 4
"""The harness scores the vocabulary at every position."""


def harness() -> str:
    """Name and version of the instrument: `lm-eval 0.4.13`.

    Raises:
        ConfigurationError: it is not installed.
    """
    if find_spec("lm_eval") is None:
        raise ConfigurationError(
            "lm-evaluation-harness",
            "no package lm_eval",
            "--benchmark",
            "Install the extra: pip install 'cross-lora-fleet[lm-eval]'; or leave --benchmark out.",
        )
    return f"lm-eval {version('lm_eval')}"


def benchmark_rows(path: str, benchmark: str) -> tuple[EvaluationRow, ...]:
    """Read a file of questions and choices in the prompt of a benchmark.

    Raises:
        ConfigurationError: no such benchmark, the harness is not installed, or the file is of another form.
        StoreRefused: S3 refuses.
        StoreUnavailable: S3 did not answer.
    """
    if benchmark not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        raise ConfigurationError(f"one of {known}", benchmark, "--benchmark", "Name one of these.")
    harness()
    return read_rows(path, question=BENCHMARKS[benchmark])


def benchmark_hits(
    loaded: LoadedBase, benchmark: str, rows: Sequence[EvaluationRow]
) -> dict[str, list[float]]:
    """1 or 0 of each row by metric, of the model as it is, with whatever adapter is on.

    Args:
        loaded: the model.
        benchmark: what the rows are of.
        rows: of `benchmark_rows`.
    """
    os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}  # read when the harness is imported
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model = HFLM(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        batch_size=BATCH_ROWS,
        max_length=loaded.limit,
    )
    model.loglikelihood = partial(model.loglikelihood, disable_tqdm=True)  # it would draw into log files
    tasks = {"tasks": {benchmark: _task(benchmark, rows)}, "groups": {}, "group_map": {}}
    samples: list[dict[str, Any]] = evaluate(model, tasks, bootstrap_iters=0)["samples"][benchmark]
    samples.sort(key=lambda one: one["doc_id"])
    return {metric: [float(one[metric]) for one in samples] for metric in BENCHMARK_METRICS}


def _task(benchmark: str, rows: Sequence[EvaluationRow]) -> Any:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    documents = Dataset.from_list([_document(row) for row in rows])
    metrics = [{"metric": one, "aggregation": "mean", "higher_is_better": True} for one in BENCHMARK_METRICS]
    return ConfigurableTask(
        config={
            "task": benchmark,
            "custom_dataset": lambda **_metadata: {"test": documents},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": metrics,
            "metadata": {"version": 1.0},
        }
    )


def _document(row: EvaluationRow) -> dict[str, Any]:
    """A row as the harness wants it: it puts the space before a choice itself."""
    choices = [one.removeprefix(" ") for one in row.choices]
    return {"prompt": row.prompt, "choices": choices, "answer": row.choices.index(row.completion)}
