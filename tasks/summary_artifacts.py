"""A finished migration in Prefect's UI: summary, table of verdicts, plot, where the report is."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from cross_lora_core.migration import CandidateOutcome, ItemOutcome
from cross_lora_core.reporting import MigrationReport, plot_fleet, render_markdown

__all__ = ["artifact_key", "create_summary_artifacts"]


def artifact_key(kind: str, name: str) -> str:
    """A key Prefect accepts: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{name}".lower()).strip("-")


def create_summary_artifacts(report: MigrationReport, outcomes: Sequence[ItemOutcome], page: Path) -> None:
    """Create the artifacts of one migration; their keys name its source base."""
    title = f"{report.source} → {', '.join(report.targets)}, {report.method}"
    create_markdown_artifact(
        f"{render_markdown(report)}\n\n`cross-lora report {report.migration}` writes the whole report.\n",
        key=artifact_key("migration", report.source),
        description=f"What survived: {title}",
    )
    create_table_artifact(
        [row for one in outcomes for row in (_row(one), *_tried(one))],
        key=artifact_key("verdicts", report.source),
        description=f"One row per adapter and target, one more per method tried: {title}",
    )
    plot = plot_fleet(report.items)
    if plot is not None:
        create_image_artifact(
            f"data:image/png;base64,{base64.b64encode(plot).decode()}",
            key=artifact_key("improvement", report.source),
            description=f"Improvement of every measured adapter: {title}",
        )
    create_link_artifact(
        page.as_uri(),
        link_text=f"{page.name} on the machine that ran the flow",
        key=artifact_key("report", report.source),
        description=f"HTML report of migration {report.migration}",
    )


def _row(one: ItemOutcome) -> dict[str, Any]:
    return {
        "adapter": one.adapter,
        "target": one.target,
        "verdict": one.verdict,
        "method": one.method,
        "modules": f"{one.modules_landed} of {one.modules_expected}",
        **_figures(one),
        "output": one.output,
    }


def _tried(one: ItemOutcome) -> list[dict[str, Any]]:
    """A row for each method that was tried, where the evidence had to choose."""
    return [
        {
            "adapter": one.adapter,
            "target": one.target,
            "verdict": f"tried: {tried.verdict}",
            "method": tried.method,
            "modules": "",
            **_figures(tried),
            "output": tried.output,
        }
        for tried in one.candidates
    ]


def _figures(one: ItemOutcome | CandidateOutcome) -> dict[str, Any]:
    return {
        "improvement": None if one.improvement is None else round(one.improvement, 4),
        "random": None if one.random is None else round(one.random, 4),
        "recovered": None if one.recovered is None else f"{one.recovered:+.1%}",
    }
