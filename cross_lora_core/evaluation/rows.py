"""Evaluation files: JSON lines of a prompt and the completion that should be likely, or of choices."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.storage import read_file

__all__ = ["EvaluationRow", "dataset_digest", "read_rows"]

_FORM = (
    'Each line is {"prompt": "…", "completion": "…"}, where prompt may be empty or absent, '
    'or {"question": "…", "choices": ["…", "…"], "answer": 0}, where answer may also be a letter or a text.'
)


@dataclass(frozen=True)
class EvaluationRow:
    """One example; only what follows the prompt is scored.

    Attributes:
        prompt: what stands before.
        completion: what is right after it; of a multiple choice, the right one.
        choices: all completions to choose from, that one among them; empty if the row is no multiple choice.
    """

    prompt: str
    completion: str
    choices: tuple[str, ...] = ()


def read_rows(path: str | Path, *, question: str | None = None) -> tuple[EvaluationRow, ...]:
    """Read an evaluation file by its path or s3:// URL; blank lines are skipped, a repeated row counts once.

    Args:
        path: of the file.
        question: how a question is put, `{}` standing for it; every row then has to be one with choices.

    Raises:
        ConfigurationError: no such file, no rows, or a line of another form; names the line.
        StoreRefused: S3 refuses.
        StoreUnavailable: S3 did not answer.
    """
    file = str(path)
    try:
        lines = read_file(file).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("a readable text file", str(error), file, _FORM) from error
    rows = tuple(
        _row(line, f"{file}:{number}", question) for number, line in enumerate(lines, 1) if line.strip()
    )
    if not rows:
        raise ConfigurationError("at least one row", "none", file, _FORM)
    return tuple(dict.fromkeys(rows))


def _row(line: str, where: str, form: str | None) -> EvaluationRow:
    try:
        raw: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("a JSON object", str(error), where, _FORM) from error
    if not isinstance(raw, dict):
        raise ConfigurationError("a JSON object", type(raw).__name__, where, _FORM)
    if form is not None and not {"question", "choices"} <= raw.keys():
        raise ConfigurationError("question, choices and answer", f"fields {sorted(raw)}", where, _FORM)
    return _choice_row(raw, where, form) if "choices" in raw else _completion_row(raw, where)


def _completion_row(raw: dict[str, Any], where: str) -> EvaluationRow:
    prompt, completion = raw.get("prompt", ""), raw.get("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str) or not completion:
        raise ConfigurationError(
            "prompt and completion as texts, the completion not empty", f"fields {sorted(raw)}", where, _FORM
        )
    return EvaluationRow(prompt, completion)


def _choice_row(raw: dict[str, Any], where: str, form: str | None) -> EvaluationRow:
    texts = raw["choices"]
    if not isinstance(texts, list) or len(texts) < 2 or not all(isinstance(x, str) and x for x in texts):
        raise ConfigurationError("choices as two or more texts, none empty", repr(texts)[:80], where, _FORM)
    right = _right_choice(texts, raw.get("answer"))
    if right is None:
        got = repr(raw.get("answer"))[:80]
        raise ConfigurationError(f"answer as one of {len(texts)} choices", got, where, _FORM)
    prompt, between = _asked(raw, where, form)
    choices = tuple(between + text for text in texts)
    return EvaluationRow(prompt, choices[right], choices)


def _right_choice(choices: list[str], answer: object) -> int | None:
    """Place of the right choice, given as its text, its letter or its number counted from 0."""
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    if isinstance(answer, str) and len(answer) == 1:
        answer = string.ascii_uppercase.find(answer.upper())
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    return None


def _asked(raw: dict[str, Any], where: str, form: str | None) -> tuple[str, str]:
    """The prompt, and what goes between it and a choice: nothing where the row gives the prompt itself.

    Where no form is asked for, a question that ends in a question mark is put as one; any other is a
    beginning that choices go on from.
    """
    question, prompt = raw.get("question"), raw.get("prompt")
    if isinstance(prompt, str) and question is None:
        return prompt, ""
    if not isinstance(question, str) or prompt is not None:
        raise ConfigurationError("either question or prompt, as text", f"fields {sorted(raw)}", where, _FORM)
    if form is None:
        form = "Question: {}\nAnswer:" if question.rstrip().endswith("?") else "{}"
    return form.replace("{}", question), " "


def dataset_digest(rows: Sequence[EvaluationRow]) -> str:
    """Hex sha256 over the prompts and completions, independent of the file's formatting.

    Rows that differ in their wrong choices alone have one digest: their losses are the same.
    """
    text = json.dumps([[row.prompt, row.completion] for row in rows], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
