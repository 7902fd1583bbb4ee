"""Catalog rows with everything filled in, so that a test names only what it is about."""

from __future__ import annotations

from cross_lora_core.catalog import AdapterRecord, BaseRecord, ItemRecord, Work


def a_base(work: Work, name: str = "old", digest: str | None = None) -> BaseRecord:
    return work.add_base(
        name=name,
        digest=digest or f"digest of {name}",
        location=f"/bases/{name}",
        family="llama",
        layers=30,
        d_model=576,
    )


def an_adapter(work: Work, base: BaseRecord, name: str = "tickets", **changes: object) -> AdapterRecord:
    values: dict[str, object] = {
        "name": name,
        "digest": f"digest of {name}",
        "base_id": base.id,
        "location": f"/adapters/{name}",
        "origin": "registered",
        "rank": 8,
        "scaling": 2.0,
        "variant": "lora",
    }
    return work.add_adapter(**(values | changes))  # type: ignore[arg-type]


def a_migration(work: Work, source: BaseRecord, digest: str = "request") -> int:
    return work.begin_migration(
        request_digest=digest,
        source_base_id=source.id,
        method="cross-lora",
        spec={"rank": 320},
        requested_by="ops",
        flow_run="run",
    )


def an_item(work: Work, migration: int, adapter: AdapterRecord, target: BaseRecord) -> ItemRecord:
    return work.add_item(
        migration_id=migration,
        adapter_id=adapter.id,
        adapter_name=adapter.name,
        adapter_location=adapter.location,
        target_base_id=target.id,
        modules_expected=36,
        skipped=[("lm_head", "no projection")],
    )


def a_result(
    work: Work, verdict: str = "migrated", request: str = "request", name: str = "tickets"
) -> ItemRecord:
    """A settled item of an adapter from base `old` to base `new`."""
    source, target = a_base(work, "old"), a_base(work, "new")
    adapter = an_adapter(work, source, name)
    item = an_item(work, a_migration(work, source, request), adapter, target)
    work.settle_item(
        item.id,
        status="done",
        verdict=verdict,
        reason="measured",
        evidence={"improvement": {"mean": 0.1}},
        modules_landed=36,
        output=f"/store/{request}",
        output_sha256="sha",
    )
    return work.item(item.id)
