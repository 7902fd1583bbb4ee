"""Put the rows of an experiment's tasks into the store, where every worker and migration reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation import EvaluationRow, read_rows
from cross_lora_core.experiments import Experiment, RowsFile, RowsRef, TaskRows
from cross_lora_core.migration import content_digest
from cross_lora_core.storage import open_folder
from tasks.runtime import open_stored

__all__ = ["store_rows"]

_FILE = "rows.jsonl"


def store_rows(experiment: Experiment, task: str) -> TaskRows:
    """Read the rows of a task and store them under their content.

    Raises:
        ConfigurationError: a file is none, or has no rows in the part that is asked for.
    """
    entry = experiment.task(task)
    return TaskRows(*(_stored(experiment, file) for file in (entry.training, entry.evaluation)))


def _stored(experiment: Experiment, file: RowsFile) -> RowsRef:
    path = experiment.located(file.file)
    end = None if file.limit is None else file.skip + file.limit
    every = read_rows(path)
    rows = every[file.skip : end]
    if not rows:
        wanted = f"more than {file.skip} rows"
        raise ConfigurationError(wanted, str(len(every)), path, "Lower `skip` in the experiment file.")
    digest = content_digest([[row.prompt, row.completion, row.choices] for row in rows])
    prefix = f"rows/{digest}"
    store = open_stored()
    with store.workspace() as scratch:
        folder = scratch / "rows"
        folder.mkdir()
        (folder / _FILE).write_text(_lines(rows), encoding="utf-8")
        store.put_folder(prefix, folder)
    return RowsRef(digest, open_folder(store.folder_url(prefix)).file_location(_FILE))


def _lines(rows: Sequence[EvaluationRow]) -> str:
    return "".join(json.dumps(_plain(one), ensure_ascii=False) + "\n" for one in rows)


def _plain(row: EvaluationRow) -> dict[str, object]:
    """A row as `read_rows` takes it, choices with whatever was put between them and the prompt."""
    if not row.choices:
        return {"prompt": row.prompt, "completion": row.completion}
    answer = row.choices.index(row.completion)
    return {"prompt": row.prompt, "choices": list(row.choices), "answer": answer}
