"""What a deprecated base still has to have moved, and who starts that: one start of a pair at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime

from cross_lora_core.catalog import BaseRecord, StartRecord, Work
from cross_lora_core.errors import RecordNotFound
from cross_lora_core.migration import MigrationRequest, TransferOptions, TransferSpec
from tasks.runtime import open_catalog
from tasks.sharing import holding

__all__ = ["DuePair", "claim_start", "due_pairs", "end_start", "note_start", "pair_of", "running_here"]


@dataclass(frozen=True)
class DuePair:
    """A deprecated base and its successor, with the adapters that nobody has moved yet."""

    source: str
    target: str
    adapters: tuple[str, ...]


def due_pairs(options: TransferOptions, today: date | None = None) -> list[DuePair]:
    """Every pair whose date has come and that still has adapters to move."""
    with open_catalog().begin() as work:
        found = [_pair(work, base, options) for base in work.bases_due(today or datetime.now(UTC).date())]
    return [pair for pair in found if pair.adapters]


def pair_of(source: str, options: TransferOptions) -> DuePair:
    """A deprecated base with its successor, whatever its date.

    Raises:
        RecordNotFound: there is no such base, or it has no successor.
    """
    with open_catalog().begin() as work:
        return _pair(work, work.registered_base(source), options)


def claim_start(pair: DuePair, options: TransferOptions, requested_by: str) -> StartRecord | None:
    """The pair's open start, or a new one; None if nothing is left to move when it is our turn to look.

    Of several who see the same need at once, one opens the start and all others find it.
    """
    with open_catalog().begin() as work:
        source, target = work.registered_base(pair.source), work.registered_base(pair.target)
        opened = work.open_start(source.id, target.id)
        if opened is not None:
            return opened
        names = _pair(work, source, options).adapters
        if not names:
            return None
        request = MigrationRequest(
            source=source.name,
            targets=[target.name],
            adapters=list(names),
            requested_by=requested_by,
            **options.model_dump(),
        )
        return work.add_start(source.id, target.id, request.model_dump(mode="json"))


def note_start(start: StartRecord, flow_run: str) -> None:
    """Keep which flow run a start became."""
    with open_catalog().begin() as work:
        work.note_start(start.id, flow_run)


def end_start(start: StartRecord) -> None:
    """Close a start: its flow run ended."""
    with open_catalog().begin() as work:
        work.end_start(start.id)


def running_here(pair: DuePair) -> AbstractContextManager[bool]:
    """Whether this process is the one that runs the pair's migration itself; for runs without a server."""
    return holding(f"start/{pair.source}/{pair.target}")


def _pair(work: Work, base: BaseRecord, options: TransferOptions) -> DuePair:
    if base.successor_id is None:
        remedy = f"`cross-lora base deprecate {base.name} --successor NAME`, or name it in the configuration."
        raise RecordNotFound("a base with a successor", "none", f"base {base.name!r}", remedy)
    spec = asdict(TransferSpec.from_request(options))
    left = work.unsettled_adapters(base.id, base.successor_id, spec)
    return DuePair(base.name, work.base(base.successor_id).name, tuple(one.name for one in left))
