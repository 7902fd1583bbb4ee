"""What projecting adapters reads: a factor file once per task that needs it, an adapter once per process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import cross_lora_core.adapters.reading as reading
import cross_lora_core.migration.files as files
import tasks.adapters_in_memory as in_memory
import tasks.project_adapter as project_adapter
import tasks.publish_adapter as publishing
import tasks.runtime as runtime
from cross_lora_core.errors import FinalError
from cross_lora_core.migration import (
    AdapterCandidate,
    FactorSource,
    MigrationRequest,
    Plan,
    PlannedItem,
    TransferSpec,
    align_landings,
    alignment_key,
    factorize_layers,
    factors_key,
    make_plan,
    write_alignments,
    write_factors,
)
from cross_lora_core.models import open_base
from tasks.device_slots import small_products
from tasks.project_adapter import project_group
from tasks.publish_adapter import publish_adapter
from tests.support.fleets import make_adapter
from tests.support.pico_models import build_pico

CPU = torch.device("cpu")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Two adapters from one small base to another of two layer groups, factors and alignments stored."""
    monkeypatch.setenv("CROSS_LORA_HOME", str(tmp_path / "home"))
    in_memory._read.cache_clear()
    source = open_base(build_pico("qwen2", tmp_path / "source"))
    target = open_base(build_pico("llama", tmp_path / "target", width=40, seed=1))
    adapters = [
        AdapterCandidate(
            f"a{seed}", str(make_adapter(Path(source.location), tmp_path / f"a{seed}", seed=seed))
        )
        for seed in (1, 2)
    ]
    request = MigrationRequest(source="s", targets=["t"], rank=8, method="cross-lora", anchor="index")
    plan = make_plan(source, [target], adapters, TransferSpec.from_request(request), group_bytes=2**15)
    assert len(plan.targets[0].groups) == len(plan.source_groups) == 2
    _put_what_is_shared(plan)
    return plan


def _put_what_is_shared(plan: Plan) -> None:
    (target,), spec, kept = plan.targets, plan.spec.factors, {}
    for base, groups in ((plan.source, plan.source_groups), (target.base, target.groups)):
        for group in groups:
            found = dict(factorize_layers(open_base(base.location), group.layers, spec, CPU))
            kept |= {(base.name, *key): one for key, one in found.items()}
            key = factors_key(base.digest, spec, group.first, group.last)
            runtime.put_once(key, lambda path, found=found: write_factors(path, found.items()))
    for group in target.groups:
        maps = align_landings(
            plan.items[0].landings_in(group),
            lambda *key: kept[plan.source.name, *key],
            lambda *key: kept[target.base.name, *key],
            None,
        )
        key = alignment_key(plan.source, target.base, plan.spec, group.first, group.last)
        runtime.put_once(key, lambda path, maps=maps: write_alignments(path, maps))


def project_all(plan: Plan, threads: int = 2) -> None:
    (target,) = plan.targets
    with ThreadPoolExecutor(threads) as pool:
        done = [
            pool.submit(
                project_group.fn, plan.source, item, group, plan.spec, FactorSource.of(plan, target, group)
            )
            for item in plan.items
            for group in target.groups
        ]
    for future in done:
        future.result()
    for item in plan.items:
        publish_adapter.fn(plan, item)


def test_each_adapter_is_read_once_and_each_file_of_factors_once_per_task(plan, monkeypatch):
    opened, modules, read = Counter(), Counter(), Counter()
    real_file, real_projections = files.MappedFile, publishing.read_projections
    monkeypatch.setattr(
        files, "MappedFile", lambda path: [opened.update([path.parts[-4]]), real_file(path)][1]
    )
    monkeypatch.setattr(
        publishing,
        "read_projections",
        lambda path: [opened.update([path.parts[-4]]), real_projections(path)][1],
    )
    real_tensors, real_read = files.GroupFile.tensors, reading.read_tensors

    def tensors(self, layer, role):
        modules[self._path.parts[-4], layer, role] += 1
        return real_tensors(self, layer, role)

    monkeypatch.setattr(files.GroupFile, "tensors", tensors)
    monkeypatch.setattr(
        reading, "read_tensors", lambda folder: [read.update([folder.name]), real_read(folder)][1]
    )
    project_all(plan)
    assert read == {"a1": 1, "a2": 1}
    tasks = len(plan.items) * len(plan.targets[0].groups)
    assert opened["factors"] == 2 * tasks  # of the source and of the target
    assert opened["alignments"] == tasks
    assert opened["projections"] == tasks  # for publishing
    landings = plan.items[0].landings
    once_each = len(plan.items) * len(landings)
    assert sum(times for (kind, *_), times in modules.items() if kind == "alignments") == once_each
    assert sum(times for (kind, *_), times in modules.items() if kind == "factors") == 2 * once_each
    assert {kind for kind, *_ in modules} == {"factors", "alignments"}


def test_an_adapter_that_changed_since_it_was_planned_is_refused_by_every_task(plan):
    make_adapter(Path(plan.source.location), Path(plan.items[0].adapter.location), seed=9)
    (target,) = plan.targets
    for group in target.groups:
        source = FactorSource.of(plan, target, group)
        with pytest.raises(FinalError, match="the adapter that was planned with"):
            project_group.fn(plan.source, plan.items[0], group, plan.spec, source)


def test_a_change_after_the_reading_changes_nothing(plan):
    item = plan.items[0]
    before = in_memory.source_updates(plan.source, item.adapter, CPU)
    kept = {key: (one.lora_A.clone(), one.lora_B.clone()) for key, one in before.items()}
    weights = Path(item.adapter.location) / "adapter_model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    after = in_memory.source_updates(plan.source, item.adapter, CPU)
    for key, (lora_A, lora_B) in kept.items():
        assert torch.equal(after[key].lora_A, lora_A)
        assert torch.equal(after[key].lora_B, lora_B)


def test_only_so_many_adapters_are_kept(plan):
    for item in plan.items:
        in_memory.source_updates(plan.source, item.adapter, CPU)
    assert in_memory._read.cache_info().currsize <= in_memory.ADAPTERS_TOGETHER


@pytest.mark.parametrize("spoiled", [b"", b"torn"])
def test_a_projection_that_a_loss_of_power_spoiled_is_made_anew(plan, spoiled):
    project_all(plan)
    before = publish_adapter.fn(plan, plan.items[0])
    store = runtime.open_stored()
    keys = list(store.list("projections/"))
    stored = {key: store.stat(key).sha256 for key in keys}
    for key in keys:
        path = store.root / key
        path.unlink()
        path.write_bytes(spoiled)
    for key in list(store.list("adapters/")):
        store.delete(key)
    project_all(plan)
    assert {key: store.stat(key).sha256 for key in keys} == stored
    assert publish_adapter.fn(plan, plan.items[0]) == before


@pytest.mark.parametrize(("workers", "threads"), [("2", 1), ("1", None)])
def test_products_take_one_core_where_other_tasks_have_the_others(monkeypatch, workers, threads):
    before = torch.get_num_threads()
    monkeypatch.setenv("CROSS_LORA_DEVICE", "cpu")
    monkeypatch.setenv("CROSS_LORA_WORKERS", workers)
    with small_products(), ThreadPoolExecutor(1) as beside:
        assert torch.get_num_threads() == (threads or before)
        assert beside.submit(torch.get_num_threads).result() == before
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("threads", [1, 3])
def test_a_new_thread_goes_back_to_what_torch_gives_every_thread(monkeypatch, threads):
    def compute():
        with small_products():
            torch.ones(1_000_000).sum()  # large enough for torch to think of threads
        return torch.get_num_threads()

    before = torch.get_num_threads()
    monkeypatch.setenv("CROSS_LORA_DEVICE", "cpu")
    monkeypatch.setenv("CROSS_LORA_WORKERS", "2")
    torch.set_num_threads(threads)
    try:
        with ThreadPoolExecutor(1) as new:
            assert new.submit(compute).result() == threads
    finally:
        torch.set_num_threads(before)


def project_with_neighbour(plan: Plan) -> None:
    """The first adapter's task runs, with the second beside it."""
    (target,), (item, neighbour) = plan.targets, plan.items
    for group in target.groups:
        source = FactorSource.of(plan, target, group)
        project_group.fn(plan.source, item, group, plan.spec, source, (neighbour,))


def stored(plan: Plan, item: PlannedItem) -> dict[str, bytes]:
    store = runtime.open_stored()
    return {
        key: store.get(key) for key in store.list("projections/") if f"/{item.adapter.digest}/" in f"/{key}/"
    }


def test_a_neighbour_is_carried_along_and_comes_to_the_same_bytes(plan, monkeypatch):
    project_all(plan)
    alone = [stored(plan, item) for item in plan.items]
    store = runtime.open_stored()
    for key in list(store.list("projections/")):
        store.delete(key)
    project_with_neighbour(plan)
    assert [stored(plan, item) for item in plan.items] == alone
    assert all(alone)
    monkeypatch.setattr(project_adapter, "project_landings", None)  # its own task runs find it done
    project_all(plan)


def test_a_neighbour_that_cannot_be_read_is_left_to_its_own_task_runs(plan):
    item, neighbour = plan.items
    make_adapter(Path(plan.source.location), Path(neighbour.adapter.location), seed=9)
    project_with_neighbour(plan)
    assert len(stored(plan, item)) == 2
    assert not stored(plan, neighbour)


def test_what_breaks_in_company_is_tried_alone(plan, monkeypatch):
    real, sizes = project_adapter.project_landings, []

    def alone_only(adapters, *rest):
        sizes.append(len(adapters))
        if len(adapters) > 1:
            raise RuntimeError("too large together")
        return real(adapters, *rest)

    monkeypatch.setattr(project_adapter, "project_landings", alone_only)
    project_with_neighbour(plan)
    item, neighbour = plan.items
    assert (len(stored(plan, item)), len(stored(plan, neighbour))) == (2, 0)
    assert sizes == [2, 1, 2, 1]


@pytest.mark.parametrize("last", [False, True])
def test_neighbours_at_once_are_computed_once(plan, monkeypatch, last):
    real, carried, begun = project_adapter.project_landings, [], threading.Event()

    def counting(adapters, *rest):
        carried.append(len(adapters))
        begun.set()
        time.sleep(0.2)  # time for the other to come
        return real(adapters, *rest)

    monkeypatch.setattr(project_adapter, "project_landings", counting)
    (target,), (item, neighbour) = plan.targets, plan.items
    source = FactorSource.of(plan, target, target.groups[0])
    common = plan.source, target.groups[0], plan.spec, source
    with ThreadPoolExecutor(2) as pool:
        for one, beside in ((item, (neighbour,)), (neighbour, () if last else (item,))):
            pool.submit(project_group.fn, common[0], one, *common[1:], beside)
            assert begun.wait(60)
    assert carried == [2]


def test_an_adapter_in_half_precision_is_kept_in_it():
    half = torch.randn(16, 8).half()
    assert in_memory._packed(half.float()).dtype == torch.float16
    assert in_memory._packed(half.float() * 1e-9).dtype != torch.float16
    odd = torch.randn(16, 8)
    assert torch.equal(in_memory._packed(odd), odd)
