"""Tables and plots of made-up results: every cell is in them, and what was not run is said."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from cross_lora_core.evaluation import EvaluationRow, figures, score
from cross_lora_core.experiments import (
    AdapterFacts,
    Cell,
    CellResult,
    Cost,
    Energy,
    Experiment,
    Results,
    Table,
    as_markdown,
    cells_of,
    load_experiment,
    plots_of,
    run_so_far,
    tables_of,
)
from cross_lora_core.experiments.scores import Column, gaps
from cross_lora_core.migration import Method
from tests.support.experiments import PicoExperiment, write_experiment

ROWS = 40
GAIN = {"base": 0.0, "trained": 0.5, "transferred": 0.1, "zero": 0.0, "random": -0.02}


@pytest.fixture
def written(tmp_path: Path) -> PicoExperiment:
    return write_experiment(tmp_path, tmp_path)


def measured(cell: Cell, *, shift: float = 0.0) -> CellResult:
    """Losses of 1 with a little noise, lower by what `GAIN` says of the cell's kind."""
    if cell.kind == "energy":
        energy = Energy(mean=0.91, least=0.62, least_module="layer 1, v", roles={"q": 0.9, "v": 0.7})
        return CellResult(cell=cell, key="k", status="measured", energy=energy)
    assert cell.task is not None
    drawn = random.Random(cell.id)
    choices = ("yes", "non") if cell.task == "choices" else ()
    rows = [EvaluationRow(f"{n}", "yes", choices) for n in range(ROWS)]
    texts = len(choices) or 1

    def losses(gain: float) -> list[float]:
        wrong = [0.1 if row % 2 else -0.1 for row in range(ROWS)]  # the base is right on every other row
        falls = [fall for one in wrong for fall in (gain, one)[:texts]]
        return [1.0 - fall + 0.01 * drawn.random() for fall in falls]

    alone = losses(0.0) if cell.kind != "base" else None
    trained = losses(0.5) if cell.kind in ("transferred", "zero", "random") else None
    found = figures(rows, losses(GAIN[cell.kind] + shift), alone, trained)
    facts = AdapterFacts(location="/x", digest="d", rank=16, size=1_500_000, modules=14)
    with_adapter = cell.kind in ("trained", "transferred")
    return CellResult(
        cell=cell,
        key="k",
        status="measured",
        figures=found,
        adapter=facts if with_adapter else None,
        cost=Cost(seconds=12.5, peak_bytes=700_000_000) if with_adapter else None,
        verdict="migrated" if cell.kind == "transferred" else None,
    )


def results_of(experiment: Experiment, *cells: CellResult) -> Results:
    return Results(format=1, experiment=experiment.name, cells={one.cell.id: one for one in cells})


def all_measured(experiment: Experiment) -> Results:
    return results_of(experiment, *map(measured, cells_of(experiment)))


def named(tables: tuple[Table, ...]) -> dict[str, Table]:
    return {one.name: one for one in tables}


def full(written: PicoExperiment) -> Experiment:
    written.change("ranks = [8]", "ranks = [8, 4]\nenergy_ranks = [4, 8]")
    return load_experiment(written.file)


def test_every_cell_is_in_the_tables(written):
    experiment = full(written)
    tables = named(tables_of(experiment, all_measured(experiment)))
    assert set(tables) == {
        "gap-loss",
        "gap-score",
        "transfers",
        "models",
        "interpolation",
        "means",
        "ranks",
        "cost",
        "energy",
    }
    cells = cells_of(experiment)
    transfers = [one for one in cells if one.kind == "transferred"]
    assert len(tables["transfers"].rows) == len(transfers)
    assert len(tables["energy"].rows) == sum(one.kind == "energy" for one in cells)
    rows_of_table_2 = {(one.model, one.kind, one.method, one.rank) for one in cells if one.task}
    assert len(tables["models"].rows) == sum(kind != "zero" for _, kind, _, _ in rows_of_table_2)
    assert not [cell for one in tables.values() for row in one.rows for cell in row if "·" in cell]
    assert all(len(row) == len(one.headers) for one in tables.values() for row in one.rows)


def test_figures_are_what_was_measured(written):
    experiment = full(written)
    tables = named(tables_of(experiment, all_measured(experiment)))
    row = dict(zip(tables["transfers"].headers, tables["transfers"].rows[0], strict=True))
    assert (row["source → target"], row["task"], row["method"]) == ("old → new", "sentences", "cross-lora @8")
    assert float(row["base"]) == pytest.approx(1.0, abs=0.01)
    assert float(row["trained"]) == pytest.approx(0.5, abs=0.01)
    assert re.fullmatch(r"\+0\.1\d* \(\+0\.09\d* … \+0\.1\d*\)|\+0\.09.*", row["improvement"])
    share = float(row["gap recovered"].split("%")[0])
    assert share == pytest.approx(20, abs=1)
    assert float(row["gap of random"].rstrip("%")) == pytest.approx(-4, abs=1)
    assert row["verdict"] == "migrated"
    (gap,) = tables["gap-loss"].rows
    assert [float(cell.split("%")[0]) for cell in gap[3:]] == pytest.approx([20] * 4, abs=1)


def test_accuracy_where_there_are_choices_and_its_relative_change(written):
    experiment = full(written)
    models = named(tables_of(experiment, all_measured(experiment)))["models"]
    by_label = {row[:2]: row[3:] for row in models.rows}
    sentences, choices = by_label["new", "trained here"]
    assert by_label["new", "none"][1].startswith("0.5000 ± 0.08")
    assert choices == "1.0000 ± 0.0000 (+100.00%)"
    assert re.fullmatch(r"0\.49\d\d|0\.50\d\d", sentences.split(" ")[0])
    assert "(-49" in sentences or "(-50" in sentences
    assert "(" not in by_label["new", "none"][0]


def test_several_seeds_stand_as_mean_with_least_and_greatest(written):
    written.change('name = "pico"', 'name = "pico"\nseeds = [0, 1]')
    experiment = load_experiment(written.file)
    cells = [measured(one, shift=0.2 * (one.seed or 0)) for one in cells_of(experiment)]
    models = named(tables_of(experiment, results_of(experiment, *cells)))["models"]
    sentences = next(row[3] for row in models.rows if row[:2] == ("new", "trained here"))
    centre, least, most = map(float, re.match(r"(\S+) \[(\S+) … (\S+)\]", sentences).groups())
    assert (centre, least, most) == pytest.approx((0.4, 0.3, 0.5), abs=0.01)


def test_what_was_not_run_is_a_dot_and_what_was_refused_a_dash(written):
    experiment = load_experiment(written.file)
    cells = [one for one in cells_of(experiment) if "cross-lora" not in one.id and one.method != "copy"]
    refused = [
        CellResult(cell=one, key="k", status="refused", verdict="refused", reason="width")
        for one in cells_of(experiment)
        if one.method == "copy"
    ]
    tables = named(tables_of(experiment, results_of(experiment, *map(measured, cells), *refused)))
    by_method = {row[4]: row for row in tables["transfers"].rows}
    assert by_method["cross-lora @8"][7:] == ("·",) * 7
    assert by_method["copy"][7:] == ("–",) * 6 + ("refused",)
    assert by_method["interpolate"][-1] == "migrated"
    (gap,) = tables["gap-loss"].rows
    assert (gap[3], gap[5]) == ("–", "–")


def test_what_no_cell_was_run_of_is_not_shown(written):
    experiment = full(written)
    run = [
        one for one in cells_of(experiment) if one.task == "choices" and one.method in (None, "cross-lora")
    ]
    some = results_of(experiment, *(measured(one) for one in run if one.rank != 4))
    shown = run_so_far(experiment, some)
    assert [one.name for one in shown.tasks] == ["choices"]
    assert (shown.methods, shown.ranks, shown.energy_ranks) == ((Method.CROSS_LORA,), (8,), ())
    assert {one.id for one in cells_of(shown)} == set(some.cells)
    assert not [cell for one in tables_of(shown, some) for row in one.rows for cell in row if "·" in cell]


def test_what_was_run_of_everything_is_everything(written):
    experiment = full(written)
    assert run_so_far(experiment, all_measured(experiment)) == experiment


def test_nothing_was_run(written):
    experiment = load_experiment(written.file)
    assert run_so_far(experiment, results_of(experiment)) == experiment
    tables = tables_of(experiment, results_of(experiment))
    assert {one.name for one in tables} == {"gap-loss", "transfers", "models", "interpolation"}
    assert plots_of(experiment, results_of(experiment)) == {}


def test_markdown(written):
    experiment = full(written)
    text = as_markdown(named(tables_of(experiment, all_measured(experiment)))["energy"])
    assert text.startswith("## Energy kept by rank")
    assert "| old | 4 | 91.00% | 62.00% | layer 1, v | q 90.0%, v 70.0% |" in text
    assert "| --- | --- | --- | --- | --- | --- |" in text


def test_plots(written):
    text = written.file.read_text()
    back = '[[pairs]]\nsource = "new"\ntarget = "old"\nrelated = true\n\n'
    written.file.write_text(text.replace("[[tasks]]", back + "[[tasks]]", 1))
    experiment = full(written)
    plots = plots_of(experiment, all_measured(experiment))
    pairs = {f"pairs-tiny-{one}.svg" for one in ("cross-lora-8", "cross-lora-4", "interpolate", "copy")}
    assert set(plots) == {"energy.svg", "gap-tiny.svg", "ranks-tiny.svg", *pairs}
    assert all(text.startswith("<svg") and text.rstrip().endswith("</svg>") for text in plots.values())
    assert plots == plots_of(experiment, all_measured(experiment))


def test_exact_matches_stand_where_text_is_generated(written):
    experiment = load_experiment(written.file)
    hits = {"base": [0.0] * 30 + [1.0] * 10, "trained": [1.0] * 40, "transferred": [1.0] * 20 + [0.0] * 20}
    cells = []
    for one in map(measured, cells_of(experiment)):
        others = (None, None) if one.cell.kind in ("base", "trained") else (hits["base"], hits["trained"])
        own = hits.get(one.cell.kind, hits["base"])
        matched = score(own, *others) if one.cell.task == "sentences" else None
        cells.append(one.model_copy(update={"exact_match": matched}))
    tables = named(tables_of(experiment, results_of(experiment, *cells)))
    by_label = {row[:2]: row[3] for row in tables["models"].rows}
    assert by_label["new", "none"].startswith("0.2500 ±")
    assert by_label["new", "cross-lora @8 from old"].endswith("(+100.00%)")
    (gap,) = tables["gap-score"].rows
    shares = gaps(
        experiment,
        results_of(experiment, *cells),
        experiment.pairs[0],
        "tiny",
        Column(Method.CROSS_LORA, 8),
        measure="score",
    )
    assert shares[0] == pytest.approx(1 / 3)
    assert float(gap[3].split("%")[0]) == pytest.approx(100 * sum(shares) / 2, abs=0.1)


def test_a_table_of_one_kind_of_figures_can_be_had_with_one_a_line():
    table = Table("gaps", "Gaps", "Shares.", ("pair", "copy", "effect"), (("a → b", "1 %", "2 %"),), labels=1)
    narrow = table.narrow()
    assert narrow.headers == ("pair", "of", "figure")
    assert narrow.rows == (("a → b", "copy", "1 %"), ("a → b", "effect", "2 %"))
    assert narrow.width == len("a → b") + len("effect") + len("figure") + 3 * 2
    assert narrow.narrow() is narrow


def test_one_transfer_has_a_mean_without_an_interval(written):
    experiment = load_experiment(written.file)
    one = [cell for cell in cells_of(experiment) if cell.task == "sentences"]
    few = results_of(experiment, *map(measured, one))
    gaps_told = [row[4] for row in named(tables_of(experiment, few))["means"].rows]
    assert gaps_told and not [gap for gap in gaps_told if "…" in gap]


def test_means_tell_related_bases_from_others(written):
    experiment = load_experiment(written.file)
    table = named(tables_of(experiment, all_measured(experiment)))["means"]
    for kept, recipe, _, count, gap, random_gap in table.rows:
        pairs = [one for one in experiment.pairs if one.related is (kept == "related")]
        assert int(count) == len(pairs) * len(experiment.tasks) * len(experiment.seeds)
        assert recipe in experiment.recipes
        assert gap.startswith("+2")  # a fifth of what training gains
        assert random_gap.startswith("-")
    assert "means" not in named(tables_of(experiment, results_of(experiment)))
