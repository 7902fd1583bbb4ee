"""A whole experiment on pico bases: resumed without doing anything twice, one cell run alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cross_lora_core.errors import StoreUnavailable, TrainingDiverged
from cross_lora_core.experiments import Results, cells_of, load_experiment, read_results
from flows.cli import app
from flows.run_experiment import run_experiment
from tests.support.buckets import mocked_buckets
from tests.support.experiments import PicoExperiment, build_bases, write_experiment

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="module")
def finished(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home and experiment of a run that is over."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSS_LORA_HOME", str(root / "home"))
        run_experiment(str(write_experiment(root, bases).file))
    return root


@pytest.fixture
def done(finished: Path, bases: Path, tmp_path: Path, home: Path) -> PicoExperiment:
    """A copy of that run, to do something to."""
    shutil.copytree(finished / "home", home, symlinks=True)
    for file in finished.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    return PicoExperiment(tmp_path / "pico.toml")


@pytest.fixture
def fresh(bases: Path, tmp_path: Path, home: Path) -> PicoExperiment:
    return write_experiment(tmp_path, bases)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Calls of what is expensive."""
    calls: dict[str, list[Any]] = {}
    for module, name in (
        ("tasks.train_adapter", "train_adapter"),
        ("tasks.evaluate_adapter", "row_losses"),
        ("tasks.evaluate_adapter", "exact_matches"),
        ("tasks.project_adapter", "project_landings"),
    ):
        real = __import__(module, fromlist=[name]).__dict__[name]

        calls[name] = []

        def call(*given: Any, _real: Any = real, _name: str = name, **named: Any) -> Any:
            calls[_name].append(given)
            return _real(*given, **named)

        monkeypatch.setattr(f"{module}.{name}", call)
    return calls


def results(experiment: PicoExperiment) -> Results:
    return read_results(experiment.results, "pico")


def test_every_cell_is_measured_or_refused(done):
    cells = cells_of(load_experiment(done.file))
    found = results(done)
    assert set(found.cells) == {one.id for one in cells}
    statuses = {one.id: found.of(one).status for one in cells}
    assert {name for name, status in statuses.items() if status == "refused"} == {
        one.id for one in cells if one.method == "copy"
    }
    assert "failed" not in statuses.values()
    copied = found.cells["transferred/old:new/sentences/tiny/0/copy"]
    assert "width" in copied.reason or "shape" in copied.reason
    for one in cells:
        figures = found.of(one).figures
        assert (figures is None) == (one.method == "copy")
        if one.kind == "zero" and figures:
            assert (figures.improvement.low, figures.improvement.high) == (0.0, 0.0)


def test_a_cell_says_what_it_rests_on(done):
    found = results(done)
    moved = found.cells["transferred/old:new/choices/tiny/0/cross-lora@8"]
    assert moved.figures.accuracy.n == moved.figures.loss.n == 8
    assert (moved.exact_match, moved.score) == (None, moved.figures.accuracy)
    written = found.cells["transferred/old:new/sentences/tiny/0/cross-lora@8"]
    assert (written.figures.accuracy, written.exact_match.n, written.score) == (None, 10, written.exact_match)
    assert written.exact_match.improvement is not None
    assert moved.verdict in ("no_effect", "migrated", "harmful")
    assert moved.adapter.size > 0
    assert moved.adapter.steps is None
    assert moved.cost.seconds > 0
    assert "torch" in moved.machine
    trained = found.cells["trained/new/choices/tiny/0"]
    assert trained.adapter.steps == 2
    assert found.cells["trained/new/sentences/tiny/0"].adapter.steps == 3
    assert trained.figures.gap is None
    base = found.cells["base/new/choices"].figures.loss.mean
    improvement = moved.figures.improvement.mean
    assert base - moved.figures.loss.mean == pytest.approx(improvement, abs=1e-9)


def test_a_second_run_does_nothing(done, counted):
    before = done.results.read_bytes()
    outcome = run_experiment(str(done.file))
    assert (outcome.measured, outcome.refused, outcome.found) == (0, 0, 26)
    assert not any(counted.values())
    assert done.results.read_bytes() == before


def test_lost_results_are_made_again_from_store_and_catalog(done, counted):
    before = results(done)
    done.results.unlink()
    outcome = run_experiment(str(done.file))
    assert (outcome.measured, outcome.refused) == (20, 6)
    assert not any(counted.values())
    after = results(done)
    assert {name: one.figures for name, one in after.cells.items()} == {
        name: one.figures for name, one in before.cells.items()
    }


def test_one_cell_alone(fresh, counted):
    name = "transferred/old:new/sentences/tiny/0/interpolate"
    outcome = run_experiment(str(fresh.file), name)
    assert outcome.measured == 3
    assert set(results(fresh).cells) == {name, "base/new/sentences", "trained/new/sentences/tiny/0"}
    assert len(counted["train_adapter"]) == 2  # on the source, and on the target for the gap
    before = results(fresh).cells[name]
    again = run_experiment(str(fresh.file), name, force=True)
    after = results(fresh).cells[name]
    assert (after.figures, after.cost) == (before.figures, before.cost)
    assert (again.measured, again.found) == (1, 2)
    assert len(counted["train_adapter"]) == 2


def test_what_changed_is_run_again_and_nothing_else(done, counted):
    done.change("steps = { tiny = 2 }", "steps = { tiny = 4 }")
    outcome = run_experiment(str(done.file))
    assert len(counted["train_adapter"]) == 2
    assert outcome.found == 26 - 2 - 9  # trained and moved adapters of the other task stand
    assert results(done).cells["trained/old/choices/tiny/0"].adapter.steps == 4


def test_a_training_that_fails_takes_its_own_cells_only_and_is_tried_again(fresh, monkeypatch):
    import tasks.train_adapter

    real = tasks.train_adapter.train_adapter

    def diverge(loaded, rows, lora, recipe, *given, **named):
        if recipe.steps == 2:
            raise TrainingDiverged("a finite loss", "nan", "step 1 of 2", "Lower the learning rate.")
        return real(loaded, rows, lora, recipe, *given, **named)

    monkeypatch.setattr(tasks.train_adapter, "train_adapter", diverge)
    outcome = run_experiment(str(fresh.file))
    assert len(outcome.failures) == 2 + 9
    assert all("choices" in name for name in outcome.failures)
    assert "Lower the learning rate" in outcome.failures["trained/old/choices/tiny/0"]
    monkeypatch.setattr(tasks.train_adapter, "train_adapter", real)
    again = run_experiment(str(fresh.file))
    assert (again.failures, again.found) == ({}, 26 - 11)


def test_a_store_that_does_not_answer_ends_the_run_and_keeps_what_was_measured(fresh, monkeypatch):
    import flows.run_experiment

    def away(_request: Any) -> None:
        raise StoreUnavailable("an answer", "none", "s3://bucket", "Run it again.")

    with monkeypatch.context() as patch:
        patch.setattr(flows.run_experiment, "migrate_fleet", away)
        with pytest.raises(StoreUnavailable):
            run_experiment(str(fresh.file))
    assert len(results(fresh).cells) == 4 + 4
    assert run_experiment(str(fresh.file)).found == 8


def test_a_store_on_s3_gives_the_same_figures(finished, fresh, monkeypatch):
    name = "transferred/old:new/choices/tiny/0/interpolate"
    with mocked_buckets(monkeypatch, "trial"):
        monkeypatch.setenv("CROSS_LORA_STORE", "s3://trial/experiment")
        assert run_experiment(str(fresh.file), name).failures == {}
    there, here = results(fresh), results(PicoExperiment(finished / "pico.toml"))
    assert there.cells[name].adapter.location.startswith("s3://trial/experiment/adapters/")
    for one in there.cells:
        assert there.cells[one].key == here.cells[one].key
        assert there.cells[one].figures == here.cells[one].figures


def test_the_commands(done, tmp_path):
    runner = CliRunner()
    ran = runner.invoke(app, ["experiment", "run", str(done.file), "--cell", "base/*", "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["found"] == 4
    shown = runner.invoke(app, ["experiment", "show", str(done.file)], env={"COLUMNS": "200"})
    assert "cross-lora @8" in shown.stdout
    narrow = runner.invoke(app, ["experiment", "show", str(done.file)], env={"COLUMNS": "60"})
    assert "figure" in narrow.stdout
    assert max(map(len, narrow.stdout.splitlines())) <= 60
    assert "wider than 60 characters" in narrow.stderr
    rendered = runner.invoke(app, ["experiment", "render", str(done.file), "--out", str(tmp_path / "docs")])
    written = [Path(line) for line in rendered.stdout.split()]
    assert tmp_path / "docs" / "pico" / "tables.md" in written
    page = (tmp_path / "docs" / "pico" / "tables.md").read_text()
    assert "26 of 26 cells are done" in page
    assert "3 steps of" in page
    assert "task `choices`: 2 steps" in page
    assert all(f"]({one.name})" in page for one in written if one.suffix == ".svg")


def test_a_file_that_is_none(tmp_path):
    result = CliRunner().invoke(app, ["experiment", "show", str(tmp_path / "none.toml")])
    assert result.exit_code == 1
    assert "expected an experiment file in TOML" in result.output
