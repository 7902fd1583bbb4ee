"""The results file: cells are added and replaced whole, by several processes, and never half."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation import figures, read_rows
from cross_lora_core.experiments import Cell, CellResult, Cost, Results, read_results, record


def result(task: str, *, key: str = "k", status: str = "measured", **fields: object) -> CellResult:
    cell = Cell(kind="base", model="old", task=task)
    return CellResult.model_validate({"cell": cell, "key": key, "status": status, **fields})


def by_id(*results: CellResult) -> dict[str, CellResult]:
    return {one.cell.id: one for one in results}


def test_what_is_recorded_is_read_back(tmp_path):
    rows_file = tmp_path / "rows.jsonl"
    rows_file.write_text('{"prompt": "a", "choices": ["b", "c"], "answer": 1}\n{"completion": "d"}\n')
    found = figures(read_rows(rows_file), [1.0, 0.5, 0.2], [1.0, 0.9, 0.4], [1.0, 0.1, 0.1])
    one = result("a", figures=found, confidence=0.95, cost=Cost(seconds=1.5, peak_bytes=3))
    path = tmp_path / "deep" / "results.json"
    record(path, "trial", by_id(one))
    assert read_results(path, "trial").cells == by_id(one)


def test_cells_are_replaced_one_by_one(tmp_path):
    path = tmp_path / "results.json"
    record(path, "trial", by_id(result("a"), result("b")))
    after = record(path, "trial", by_id(result("b", key="new")))
    assert {name: one.key for name, one in after.cells.items()} == {"base/old/a": "k", "base/old/b": "new"}
    assert read_results(path, "trial") == after


def test_what_was_found_made_keeps_what_it_cost(tmp_path):
    path = tmp_path / "results.json"
    cost = Cost(seconds=2.0)
    record(path, "trial", by_id(result("a", cost=cost), result("b", cost=cost)))
    after = record(path, "trial", by_id(result("a"), result("b", key="new")))
    assert {name: one.cost for name, one in after.cells.items()} == {"base/old/a": cost, "base/old/b": None}


def test_a_cell_is_done_if_its_inputs_are_the_same_and_it_did_not_fail():
    failed, refused = result("b", status="failed"), result("c", status="refused")
    results = Results(format=1, experiment="trial", cells=by_id(result("a"), failed, refused))
    assert results.is_done(result("a").cell, "k")
    assert not results.is_done(result("a").cell, "other")
    assert not results.is_done(failed.cell, "k")
    assert results.is_done(refused.cell, "k")
    assert not results.is_done(result("d").cell, "k")


def test_an_interrupted_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    record(path, "trial", by_id(result("a")))
    before = path.read_bytes()

    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record(path, "trial", by_id(result("b")))
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == [".results.json.lock", "results.json"]


def _add(path: Path, first: int) -> None:
    for number in range(first, first + 20):
        record(path, "trial", by_id(result(f"task-{number}")))


def test_two_processes_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "results.json"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add, args=(path, first)) for first in (0, 20)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert [one.exitcode for one in workers] == [0, 0]
    assert len(read_results(path, "trial").cells) == 40


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "a results file"),
        ('{"format": 2, "experiment": "trial", "cells": {}}', "a results file"),
        ('{"format": 1, "experiment": "other", "cells": {}}', "results of trial, got results of other"),
    ],
)
def test_a_file_that_is_none_of_ours_is_not_overwritten(tmp_path, text, expected):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=expected):
        record(path, "trial", by_id(result("a")))
    assert path.read_text() == text


def test_no_file_is_no_results(tmp_path):
    assert read_results(tmp_path / "none.json", "trial").cells == {}
