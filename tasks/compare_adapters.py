"""What adapters do on a base, beside the base alone; what the command line calls, without a flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cross_lora_core.adapters import local_adapter, read_adapter, updates_by_role
from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation import (
    EvaluationRow,
    Figures,
    Score,
    benchmark_rows,
    each_choice,
    figures,
    harness,
    read_rows,
    score,
)
from cross_lora_core.migration import AdapterCandidate, BaseRef, base_ref, find_adapters, find_base
from cross_lora_core.settings import load_settings
from tasks.device_slots import device_slot
from tasks.evaluate_adapter import measured_benchmark, measured_losses, measured_matches
from tasks.runtime import open_catalog, open_stored

__all__ = ["ComparedAdapter", "Comparison", "compare_adapters"]


@dataclass(frozen=True)
class ComparedAdapter:
    """One adapter on the base; name and location are None for the base alone.

    Attributes:
        trained: whether its gain is the gap that others may recover.
        figures: from the likelihood of what is right.
        exact_match: of the rows without choices, those whose completion is generated; None if none was.
        benchmark: scores by lm-evaluation-harness, by the names of its metrics.
    """

    adapter: str | None
    location: str | None
    trained: bool
    figures: Figures
    exact_match: Score | None
    benchmark: dict[str, Score]


@dataclass(frozen=True)
class Comparison:
    """What was measured on one base and one file.

    Attributes:
        base: its name.
        digest: of the base.
        rows_file: as it was named.
        rows: of the file that were used.
        confidence: level of the intervals.
        harness: that took the benchmark's scores, with its version; None where there is no benchmark.
        results: the base alone first, then the adapters in the order they were named.
    """

    base: str
    digest: str
    rows_file: str
    rows: int
    confidence: float
    harness: str | None
    results: tuple[ComparedAdapter, ...]


@dataclass(frozen=True)
class _Measured:
    """Of the base with one adapter: losses of every choice, hits of generated text and of a benchmark."""

    losses: list[float]
    matches: list[float] | None
    benchmark: dict[str, list[float]]


def compare_adapters(
    base: str,
    adapters: Sequence[str],
    rows_file: str,
    *,
    limit: int | None = None,
    trained: str | None = None,
    generate: bool = False,
    benchmark: str | None = None,
    tell: Callable[[str], None] = lambda _name: None,
) -> Comparison:
    """Measure a base alone and with each adapter, and compare row by row.

    Args:
        base: name, folder, s3:// URL or hub id.
        adapters: folders, folders of such, s3:// URLs, or names registered on the base.
        rows_file: path or s3:// URL of an evaluation file.
        limit: use the first rows only.
        trained: an adapter trained on this base, whose gain is the gap that others may recover.
        generate: let the model write each completion, too, and count exact matches.
        benchmark: what the rows are of; they are put, and scored too, as lm-evaluation-harness does.
        tell: called with the name of what is measured next.

    Raises:
        ConfigurationError: the file, an adapter or `trained` is not what it should be.
        AdapterRefused: an adapter is not one for this base.
    """
    read = benchmark_rows(rows_file, benchmark) if benchmark else read_rows(rows_file)
    rows, settings = read[:limit], load_settings()
    open_rows = _open_rows(rows, rows_file) if generate else []
    model, named, reference = _found(base, adapters, trained)
    measured: dict[AdapterCandidate | None, _Measured] = {}
    with device_slot():
        for one in (None, *named):
            tell(one.name if one else model.name)
            measured[one] = _measure(model, one, rows, open_rows, benchmark)
    results = [ComparedAdapter(None, None, False, *_judged(rows, measured[None], None, None))]
    for one in named:
        trained_here = one == reference
        best = measured[reference] if reference and not trained_here else None
        judged = _judged(rows, measured[one], measured[None], best)
        results.append(ComparedAdapter(one.name, one.location, trained_here, *judged))
    level, used = settings.confidence, harness() if benchmark else None
    return Comparison(model.name, model.digest, rows_file, len(rows), level, used, tuple(results))


def _open_rows(rows: Sequence[EvaluationRow], rows_file: str) -> list[EvaluationRow]:
    found = [row for row in rows if not row.choices]
    if not found:
        raise ConfigurationError(
            "rows of a prompt and a completion, to be generated",
            "multiple choice alone",
            rows_file,
            "Leave --generate out; choices are scored without it.",
        )
    return found


def _measure(
    base: BaseRef,
    adapter: AdapterCandidate | None,
    rows: Sequence[EvaluationRow],
    open_rows: Sequence[EvaluationRow],
    benchmark: str | None,
) -> _Measured:
    settings, folder = load_settings(), local_adapter(adapter.location) if adapter else None
    return _Measured(
        measured_losses(base, folder, each_choice(rows), settings),
        measured_matches(base, folder, open_rows, settings) if open_rows else None,
        measured_benchmark(base, folder, benchmark, rows, settings) if benchmark else {},
    )


def _judged(
    rows: Sequence[EvaluationRow], own: _Measured, alone: _Measured | None, best: _Measured | None
) -> tuple[Figures, Score | None, dict[str, Score]]:
    """Figures and scores of an adapter beside the base alone, and beside one trained on it."""
    settings = load_settings()
    level, seed = settings.confidence, settings.seed

    def scored(hits: list[float], *others: list[float] | None) -> Score:
        return score(hits, *others, confidence=level, seed=seed)

    others = [one.losses if one else None for one in (alone, best)]
    found = figures(rows, own.losses, *others, confidence=level, seed=seed)
    others = [one.matches if one else None for one in (alone, best)]
    matched = scored(own.matches, *others) if own.matches is not None else None
    benchmark = {
        metric: scored(hits, *(one.benchmark[metric] if one else None for one in (alone, best)))
        for metric, hits in own.benchmark.items()
    }
    return found, matched, benchmark


def _found(
    base: str, adapters: Sequence[str], trained: str | None
) -> tuple[BaseRef, list[AdapterCandidate], AdapterCandidate | None]:
    with open_catalog().begin() as work:
        opened = find_base(work, base, shared=open_stored())
        model = base_ref(opened)
        wanted = [*adapters, trained] if trained else list(adapters)
        named = find_adapters(work, model.name, wanted, None) if wanted else []
        reference = find_adapters(work, model.name, [trained], None) if trained else []
    for one in named:
        updates_by_role(read_adapter(one.location), opened)  # refuses what is not for this base, in good time
    if len(reference) > 1:
        raise ConfigurationError(
            "one adapter", f"{len(reference)} in {trained}", "--trained", "Name one of them."
        )
    return model, named, reference[0] if reference else None
