"""Let a source base write the strings that both bases are run on, with an adapter on or without one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from prefect import task

from cross_lora_core.adapters import local_adapter
from cross_lora_core.migration import AdapterRef, BaseRef, ProbeSpec, probes_key
from cross_lora_core.responses import sample_strings
from cross_lora_core.storage import StoredObject
from tasks.bases_in_memory import bases_in_memory
from tasks.device_slots import DEVICE_TAG, device_slot
from tasks.runtime import TASK_OPTIONS, open_stored
from tasks.sharing import put_shared

__all__ = ["read_probes", "sample_probes", "store_probes"]


@task(
    name="sample",
    task_run_name="sample from {source.name} with {adapter.name}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def sample_probes(source: BaseRef, adapter: AdapterRef, spec: ProbeSpec) -> StoredObject:
    """Sample and store the strings; done once per adapter, whatever targets it goes to."""
    return store_probes(source, adapter, spec)


def store_probes(source: BaseRef, adapter: AdapterRef | None, spec: ProbeSpec) -> StoredObject:
    """Sample and store strings, unless they are there or another worker is at it; None is the base alone."""

    def write(path: Path) -> None:
        with device_slot() as device:
            strings = _sampled(source, adapter, spec, device)
        path.write_text(json.dumps(strings, ensure_ascii=False), encoding="utf-8")

    stored, _ = put_shared(_key(source, adapter, spec), write)
    return stored


def _sampled(
    source: BaseRef, adapter: AdapterRef | None, spec: ProbeSpec, device: torch.device
) -> tuple[str, ...]:
    folder = local_adapter(adapter.location, adapter.digest) if adapter else None
    with bases_in_memory(source, device=device) as (loaded,), loaded.with_adapter(folder):
        return sample_strings(
            loaded, spec.count, tokens=spec.tokens, seed=spec.seed, contrasts=spec.contrasts
        )


def read_probes(source: BaseRef, adapter: AdapterRef | None, spec: ProbeSpec) -> tuple[str, ...]:
    """The strings that were stored."""
    return tuple(json.loads(open_stored().get(_key(source, adapter, spec))))


def _key(source: BaseRef, adapter: AdapterRef | None, spec: ProbeSpec) -> str:
    return probes_key(source, adapter.digest if adapter else "", spec)
