"""Evaluation files: JSON lines of a prompt and the completion an adapter should make likely."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.storage import read_file

__all__ = ["EvaluationRow", "dataset_digest", "read_rows"]

_FORM = 'Each line is {"prompt": "…", "completion": "…"}; prompt may be empty or absent.'


@dataclass(frozen=True)
class EvaluationRow:
    """One example; only the completion is scored."""

    prompt: str
    completion: str


def read_rows(path: str | Path) -> tuple[EvaluationRow, ...]:
    """Read an evaluation file by its path or s3:// URL; blank lines are skipped, a repeated row counts once.

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
    rows = tuple(_row(line, f"{file}:{number}") for number, line in enumerate(lines, 1) if line.strip())
    if not rows:
        raise ConfigurationError("at least one row", "none", file, _FORM)
    return tuple(dict.fromkeys(rows))


def _row(line: str, where: str) -> EvaluationRow:
    try:
        raw: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("a JSON object", str(error), where, _FORM) from error
    if not isinstance(raw, dict):
        raise ConfigurationError("a JSON object", type(raw).__name__, where, _FORM)
    prompt, completion = raw.get("prompt", ""), raw.get("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str) or not completion:
        raise ConfigurationError(
            "prompt and completion as texts, the completion not empty", f"fields {sorted(raw)}", where, _FORM
        )
    return EvaluationRow(prompt, completion)


def dataset_digest(rows: tuple[EvaluationRow, ...]) -> str:
    """Hex sha256 over the rows' texts, independent of the file's formatting."""
    text = json.dumps([[row.prompt, row.completion] for row in rows], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
