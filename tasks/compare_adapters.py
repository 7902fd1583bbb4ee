"""What adapters do on a base, beside the base alone; what the command line calls, without a flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cross_lora_core.adapters import local_adapter, read_adapter, updates_by_role
from cross_lora_core.errors import ConfigurationError
from cross_lora_core.evaluation import EvaluationRow, Figures, each_choice, figures, read_rows
from cross_lora_core.migration import AdapterCandidate, BaseRef, base_ref, find_adapters, find_base
from cross_lora_core.settings import load_settings
from tasks.device_slots import device_slot
from tasks.evaluate_adapter import measured_losses
from tasks.runtime import open_catalog, open_stored

__all__ = ["ComparedAdapter", "Comparison", "compare_adapters"]


@dataclass(frozen=True)
class ComparedAdapter:
    """One adapter on the base; name and location are None for the base alone."""

    adapter: str | None
    location: str | None
    trained: bool
    figures: Figures


@dataclass(frozen=True)
class Comparison:
    """What was measured on one base and one file.

    Attributes:
        base: its name.
        digest: of the base.
        rows_file: as it was named.
        rows: of the file that were used.
        confidence: level of the intervals.
        results: the base alone first, then the adapters in the order they were named.
    """

    base: str
    digest: str
    rows_file: str
    rows: int
    confidence: float
    results: tuple[ComparedAdapter, ...]


def compare_adapters(
    base: str,
    adapters: Sequence[str],
    rows_file: str,
    *,
    limit: int | None = None,
    trained: str | None = None,
    tell: Callable[[str], None] = lambda _name: None,
) -> Comparison:
    """Measure a base alone and with each adapter, and compare row by row.

    Args:
        base: name, folder, s3:// URL or hub id.
        adapters: folders, folders of such, s3:// URLs, or names registered on the base.
        rows_file: path or s3:// URL of an evaluation file.
        limit: use the first rows only.
        trained: an adapter trained on this base, whose gain is the gap that others may recover.
        tell: called with the name of what is measured next.

    Raises:
        ConfigurationError: the file, an adapter or `trained` is not what it should be.
        AdapterRefused: an adapter is not one for this base.
    """
    rows, settings = read_rows(rows_file)[:limit], load_settings()
    model, named, reference = _found(base, adapters, trained)
    losses = _all_losses(model, named, rows, tell)
    known = losses[reference] if reference else None
    level = settings.confidence

    def judged(found: list[float], alone: list[float] | None, best: list[float] | None) -> Figures:
        return figures(rows, found, alone, best, confidence=level, seed=settings.seed)

    results = [ComparedAdapter(None, None, False, judged(losses[None], None, None))]
    for one in named:
        trained_here = one == reference
        found = judged(losses[one], losses[None], None if trained_here else known)
        results.append(ComparedAdapter(one.name, one.location, trained_here, found))
    return Comparison(model.name, model.digest, rows_file, len(rows), level, tuple(results))


def _all_losses(
    base: BaseRef,
    adapters: Sequence[AdapterCandidate],
    rows: Sequence[EvaluationRow],
    tell: Callable[[str], None],
) -> dict[AdapterCandidate | None, list[float]]:
    """Losses of every choice, of the base alone first."""
    losses: dict[AdapterCandidate | None, list[float]] = {}
    with device_slot():
        for one in (None, *adapters):
            tell(one.name if one else base.name)
            losses[one] = _losses(base, one, rows)
    return losses


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


def _losses(base: BaseRef, adapter: AdapterCandidate | None, rows: Sequence[EvaluationRow]) -> list[float]:
    folder = None
    if adapter is not None:
        folder = local_adapter(adapter.location, read_adapter(adapter.location).digest)
    return measured_losses(base, folder, each_choice(rows), load_settings())
