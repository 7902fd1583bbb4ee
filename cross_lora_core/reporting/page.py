"""One self-contained HTML page per migration: no script, no outside file, plots inline."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from cross_lora_core.reporting.data import CandidateReport, ItemReport, MigrationReport
from cross_lora_core.reporting.plots import LOSS_LABELS, plot_energy, plot_losses, plot_norms

__all__ = ["VERDICT_MEANINGS", "render_markdown", "render_page"]

VERDICT_MEANINGS = {
    "copied": "the update was carried over unchanged, and that is exact or was measured to help",
    "migrated": "surely better than the target base by an amount that matters, and than a random update",
    "no_effect": "loads, but changes nothing, or nothing that matters and could be told from chance",
    "harmful": "surely worse than the target base, by an amount that matters",
    "needs_retraining": "several methods were tried and none is surely better than the target base and the "
    "controls; train it anew on the target",
    "unverified": "structure checked only: there was no evaluation file, or it was too short",
    "refused": "nothing was written: the input is not something this method can move",
    "failed": "something broke on the way; run again after mending it",
}


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _recovered(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}"


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"signed": _signed, "share": _share, "recovered": _recovered}
    return environment


def render_page(report: MigrationReport) -> str:
    """The whole report as one HTML text."""
    template = files("cross_lora_core.reporting").joinpath("page.html").read_text(encoding="utf-8")
    plots = [_plots(item) if report.detailed else (None, None, None) for item in report.items]
    return (
        _environment()
        .from_string(template)
        .render(report=report, items=list(zip(report.items, plots, strict=True)), meanings=VERDICT_MEANINGS)
    )


def _plots(item: ItemReport) -> tuple[str | None, str | None, str | None]:
    return plot_losses(item) if item.losses else None, plot_energy(item), plot_norms(item)


def render_markdown(report: MigrationReport) -> str:
    """The verdict table and the reasons as Markdown, for a Prefect artifact."""
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    return "\n".join(
        [
            f"# {report.source} → {', '.join(report.targets)}",
            "",
            f"Method `{report.method}`. {counts}.",
            "",
            "| adapter | target | verdict | method | modules | " + " | ".join(LOSS_LABELS) + " |",
            "|---|---|---|---|---|" + "---|" * len(LOSS_LABELS),
            *(row for one in report.items for row in (_markdown_row(one), *_tried_rows(one))),
            "",
            *(f"- **{one.adapter} → {one.target}**: {one.reason}" for one in report.items),
        ]
    )


def _markdown_row(item: ItemReport) -> str:
    landed = f"{item.modules_landed} of {item.modules_expected}"
    cells = [item.adapter, item.target, f"**{item.verdict}**", item.method or "–", landed, *_losses(item)]
    return f"| {' | '.join(cells)} |"


def _tried_rows(item: ItemReport) -> list[str]:
    """A row for each method of several that were tried."""
    if len(item.candidates) < 2:
        return []
    return [f"| | | {one.verdict} | {one.method} | | {' | '.join(_losses(one))} |" for one in item.candidates]


def _losses(item: ItemReport | CandidateReport) -> list[str]:
    return [f"{item.losses[one]:.4f}" if one in item.losses else "–" for one in LOSS_LABELS]
