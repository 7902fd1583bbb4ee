from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from cross_lora_core.catalog import MeasureRecord
from cross_lora_core.evaluation import Verdict
from cross_lora_core.reporting import (
    VERDICT_MEANINGS,
    CandidateReport,
    Interval,
    ItemReport,
    MigrationReport,
    plot_fleet,
    render_markdown,
    render_page,
)

MODULES = tuple(
    MeasureRecord(layer, role, layer, 0.9, 0.8, 0.5 if kept else None, 1.0, 0.4, 0.001)
    for kept, role in ((True, "q"), (False, "down"))
    for layer in range(3)
)
MEASURED = ItemReport(
    adapter="tickets <b>",
    target="new",
    status="done",
    verdict="migrated",
    reason="the loss falls by 0.2",
    modules_expected=6,
    modules_landed=6,
    output="/store/adapters/new/tickets/1",
    rows=40,
    losses={
        "target base": 1.0,
        "zero": 1.0,
        "random": 1.01,
        "migrated": 0.8,
        "source base": 0.9,
        "source adapter": 0.4,
    },
    improvement=Interval(0.2, 0.15, 0.25),
    over_random=Interval(0.21, 0.16, 0.26),
    recovered=0.4,
    modules=MODULES,
    skipped=(("model.layers.9.q", "no layer is mapped"),),
    lineage={"source base": "old (abc)"},
    method="cross-lora",
)
CHOSEN = replace(
    MEASURED,
    method="copy",
    candidates=(
        CandidateReport("copy", "copied", "falls", MEASURED.losses, MEASURED.improvement, 0.4),
        CandidateReport("cross-lora", "harmful", "rises", MEASURED.losses | {"migrated": 1.5}, None, None),
    ),
    left_out=(("probe", "no <tokenizer>"),),
)
REFUSED = ItemReport("broken", "new", "refused", "refused", "NaN in lora_A", 0, 0, None, 0)


def report(*items: ItemReport) -> MigrationReport:
    moment = datetime(2026, 11, 24, 12, tzinfo=UTC)
    return MigrationReport("3", "old", ("new",), "cross-lora", {"rank": 320}, moment, moment, items)


def test_the_page_stands_alone_and_shows_every_item():
    page = render_page(report(MEASURED, REFUSED))
    assert "tickets &lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count("<svg") == 3
    assert "+0.2000" in page
    assert "+40.0%" in page
    assert "6 of 6" in page
    assert "NaN in lora_A" in page
    assert "no layer is mapped" in page
    for outside in ("http://", "https://", "<script", "src=", "<link"):
        assert outside not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
            "http://creativecommons.org", ""
        ).replace("https://matplotlib.org", "")


def test_the_same_report_gives_the_same_page():
    assert render_page(report(MEASURED)) == render_page(report(MEASURED))


def test_counts_are_by_verdict_best_first():
    assert report(REFUSED, MEASURED, REFUSED).counts == {"migrated": 1, "refused": 2}


def test_every_verdict_is_explained():
    assert set(VERDICT_MEANINGS) == {str(verdict) for verdict in Verdict}


def test_markdown_has_a_row_per_item():
    text = render_markdown(report(MEASURED, REFUSED))
    assert (
        "| tickets <b> | new | **migrated** | cross-lora | 6 of 6 | 1.0000 | 1.0000 | 1.0100 | 0.8000 |"
        in text
    )
    assert "1 migrated, 1 refused" in text
    assert f"- **{REFUSED.adapter} → {REFUSED.target}**: {REFUSED.reason}" in text.splitlines()


def test_what_was_tried_is_shown_with_its_figures_and_what_was_not_with_the_reason():
    page, text = render_page(report(CHOSEN)), render_markdown(report(CHOSEN))
    assert page.count("<td>cross-lora</td>") == 1
    assert "1.5000" in page
    assert "probe is left out: no &lt;tokenizer&gt;" in page
    assert "| tickets <b> | new | **migrated** | copy | 6 of 6 |" in text
    assert "| | | harmful | cross-lora | | 1.0000 | 1.0000 | 1.0100 | 1.5000 |" in text
    assert "tried" not in render_page(report(MEASURED)).split("</style>")[1]


def test_the_plot_of_a_fleet_shows_what_was_measured():
    picture = plot_fleet([MEASURED, REFUSED])
    assert picture is not None
    assert picture.startswith(b"\x89PNG")
    assert plot_fleet([REFUSED]) is None


def test_the_plot_of_a_large_fleet_stays_a_picture():
    many = [replace(MEASURED, adapter=f"adapter-{number}") for number in range(500)]
    picture = plot_fleet(many)
    assert picture is not None
    assert len(picture) < 200_000
