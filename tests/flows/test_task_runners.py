"""The task runner by setting: threads, Dask and Ray give the same results and never overfill a device."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from prefect.task_runners import ThreadPoolTaskRunner

from cross_lora_core.errors import ClusterUnavailable, ConfigurationError
from cross_lora_core.migration import MigrationRequest
from cross_lora_core.settings import load_settings
from flows import dask_runner, ray_runner
from flows.cluster_workers import fingerprint, refuse_unlike
from flows.migrate_fleet import migrate_fleet
from flows.progress import listening
from flows.task_runners import RUNNER, chosen_runner
from tasks.device_slots import count_slots, device_slot
from tests.support.occupancy import crowd, most_at_once
from tests.support.servers import free_port

on_clusters = [
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.flow,
    pytest.mark.services,
    pytest.mark.parametrize("runner", ["dask", "ray"]),
]


class Counts:
    """Listens to a flow run."""

    def __init__(self) -> None:
        self.expected, self.ended = Counter(), Counter()

    def expect(self, stage: str, count: int) -> None:
        self.expected[stage] += count

    def advance(self, stage: str) -> None:
        self.ended[stage] += 1


@pytest.fixture(scope="module")
def clusters(tmp_path_factory, request) -> Iterator[dict[str, dict[str, str]]]:
    """A Dask cluster of two processes and a Ray cluster, as the runners make them, two devices each: their settings."""
    import ray
    from distributed import SpecCluster

    homes = {runner: str(tmp_path_factory.mktemp(runner)) for runner in ("dask", "ray")}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(request.config.rootpath), prepend=":")
        environment.setenv("CROSS_LORA_WORKERS", "4")
        environment.setenv("CROSS_LORA_DEVICE_SLOTS", "2")
        environment.setenv("CROSS_LORA_HOME", homes["dask"])
        with SpecCluster(**dask_runner.local_cluster(load_settings())) as dask:
            environment.setenv("CROSS_LORA_HOME", homes["ray"])
            node = ray.init(**ray_runner.make_runner(load_settings()).init_kwargs)
            addresses = {"dask": dask.scheduler_address, "ray": node.address_info["gcs_address"]}
            yield {
                runner: {
                    "CROSS_LORA_TASK_RUNNER": runner,
                    f"CROSS_LORA_{runner.upper()}_ADDRESS": address,
                    "CROSS_LORA_HOME": homes[runner],
                }
                for runner, address in addresses.items()
            }
            ray.shutdown()


@pytest.fixture
def on_cluster(home, clusters, runner, monkeypatch) -> None:
    for name, value in clusters[runner].items():
        monkeypatch.setenv(name, value)


def migrate(fleet) -> tuple[dict[str, tuple], dict[str, bytes]]:
    """What became of every adapter, and the published files."""
    request = MigrationRequest(
        source=str(fleet.source), targets=[str(fleet.target)], adapters=[str(fleet.adapters)], rank=12
    )
    counts = Counts()
    with pytest.MonkeyPatch.context() as environment, listening(counts):
        environment.setenv("CROSS_LORA_GROUP_BYTES", str(2**17))
        outcome = migrate_fleet(request)
    assert counts.ended == counts.expected
    items = {one.adapter: (one.verdict, one.modules_landed, one.improvement) for one in outcome.items}
    store = load_settings().home / "store"
    published = sorted(store.glob("adapters/*/*/*/*"))
    return items, {path.relative_to(store).as_posix(): path.read_bytes() for path in published}


@pytest.fixture(scope="module")
def on_threads(fleet, prefect_server, tmp_path_factory) -> tuple[dict[str, tuple], dict[str, bytes]]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CROSS_LORA_HOME", str(tmp_path_factory.mktemp("threads")))
        environment.setenv("CROSS_LORA_WORKERS", "2")
        return migrate(fleet)


class TestOnClusters:
    pytestmark = on_clusters

    def test_the_same_bytes_and_verdicts_as_threads(self, on_threads, fleet, on_cluster):
        found = migrate(fleet)
        assert found == on_threads
        assert len(found[1]) == 4 * 4  # the refused one has no files

    def test_device_tasks_never_outnumber_the_devices(self, tmp_path, on_cluster):
        """Four threads or processes, two devices; a task that waits for its input holds none."""
        stays, never = crowd(str(tmp_path), 12)
        assert most_at_once(stays) <= 2
        for process in {one.process for one in stays}:
            assert most_at_once([one for one in stays if one.process == process]) == 1
        assert never == "NotReady"

    def test_workers_with_other_settings_are_refused(self, tmp_path, on_cluster, monkeypatch):
        monkeypatch.setenv("CROSS_LORA_CATALOG", "postgresql+psycopg://me:hidden@db/other")
        with pytest.raises(ConfigurationError, match="other values of CROSS_LORA_CATALOG") as refusal:
            crowd(str(tmp_path), 1)
        assert "hidden" not in str(refusal.value)


@pytest.mark.usefixtures("home")
class TestDeviceSlots:
    def test_as_many_tasks_as_slots(self, monkeypatch):
        monkeypatch.setenv("CROSS_LORA_DEVICE_SLOTS", "2")
        inside, most, both = [], [], threading.Barrier(2)

        def compute() -> None:
            with device_slot() as device:
                inside.append(device)
                both.wait(timeout=30)  # two are in at once
                most.append(len(inside))
                both.wait(timeout=30)
                inside.pop()

        threads = [threading.Thread(target=compute) for _ in range(6)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(60)
        assert max(most) == 2
        assert len(most) == 6

    def test_a_slot_is_free_again_after_an_error(self, monkeypatch):
        monkeypatch.setenv("CROSS_LORA_DEVICE_SLOTS", "1")
        for _ in range(3):
            with pytest.raises(ValueError, match="broken"), device_slot():
                raise ValueError("broken")

    def test_how_many(self, monkeypatch):
        monkeypatch.setenv("CROSS_LORA_WORKERS", "3")
        assert count_slots(load_settings()) == 3
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        assert count_slots(load_settings()) == 2
        monkeypatch.setenv("CROSS_LORA_DEVICE", "cpu")
        assert count_slots(load_settings()) == 3
        monkeypatch.setenv("CROSS_LORA_DEVICE_SLOTS", "5")
        assert count_slots(load_settings()) == 5

    def test_every_slot_has_its_gpu(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        with device_slot() as first, device_slot() as second:
            assert [str(first), str(second)] == ["cuda:0", "cuda:1"]


@pytest.mark.usefixtures("home")
class TestChoice:
    def test_threads_are_the_default(self, monkeypatch):
        monkeypatch.setenv("CROSS_LORA_WORKERS", "3")
        assert RUNNER.duplicate() == ThreadPoolTaskRunner(max_workers=3)

    def test_the_settings_are_read_when_a_run_starts(self, monkeypatch):
        monkeypatch.setenv("CROSS_LORA_TASK_RUNNER", "dask")
        monkeypatch.setenv("CROSS_LORA_DASK_ADDRESS", "tcp://scheduler:8786")
        assert RUNNER.duplicate() == dask_runner.DeviceDaskRunner(address="tcp://scheduler:8786")
        monkeypatch.setenv("CROSS_LORA_TASK_RUNNER", "ray")
        assert isinstance(migrate_fleet.task_runner.duplicate(), ray_runner.DeviceRayRunner)

    def test_a_missing_extra_is_named(self, monkeypatch):
        monkeypatch.setenv("CROSS_LORA_TASK_RUNNER", "dask")
        monkeypatch.setitem(sys.modules, "flows.dask_runner", None)
        with pytest.raises(ConfigurationError, match=r"cross-lora-fleet\[dask\]"):
            chosen_runner(load_settings())

    def test_a_scheduler_that_does_not_answer_can_be_tried_again(self, monkeypatch):
        runner = dask_runner.DeviceDaskRunner(
            address=f"tcp://127.0.0.1:{free_port()}", client_kwargs={"timeout": 1}
        )
        with pytest.raises(ClusterUnavailable, match="CROSS_LORA_DASK_ADDRESS"), runner:
            pass

    def test_a_ray_cluster_without_devices_is_refused_not_waited_for(self, monkeypatch):
        settings = load_settings()
        assert ray_runner.device_of({"CPU": 8.0, "GPU": 1.0}, settings) == {"num_gpus": 1}
        assert ray_runner.device_of({"CPU": 8.0, "device": 1.0}, settings) == {"resources": {"device": 1}}
        with pytest.raises(ConfigurationError, match="ray start --resources"):
            ray_runner.device_of({"CPU": 8.0}, settings)

    def test_a_local_dask_cluster_gives_each_process_its_gpu(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        monkeypatch.setenv("CROSS_LORA_WORKERS", "4")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
        workers = dask_runner.local_cluster(load_settings())["workers"].values()
        seen = [
            (one["options"]["nthreads"], one["options"]["env"]["CUDA_VISIBLE_DEVICES"]) for one in workers
        ]
        assert seen == [(2, "3"), (2, "5")]

    def test_fingerprints_tell_what_differs_and_hold_no_value(self, monkeypatch):
        theirs = fingerprint()
        refuse_unlike({"worker-1": theirs})
        monkeypatch.setenv("CROSS_LORA_SEED", "7")
        with pytest.raises(ConfigurationError, match=r"CROSS_LORA_SEED.*worker-1"):
            refuse_unlike({"worker-1": theirs})
        assert not any("sqlite" in digest for digest in theirs.values())
