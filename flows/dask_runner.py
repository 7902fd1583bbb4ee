"""Tasks on Dask: device tasks take one unit of the worker resource `device`.

An existing cluster's workers are started with `dask worker --resources
"device=1"`, one process a GPU. Without an address a cluster of this machine is
made for the run: one worker process a device.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any, Self

import dask
from distributed import Nanny, Scheduler, SpecCluster
from prefect.tasks import Task
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

from cross_lora_core.errors import ClusterUnavailable
from cross_lora_core.settings import Settings
from flows.cluster_workers import fingerprint, no_device, refuse_unlike
from flows.tag_limits import LimitedTags
from flows.task_parameters import bare
from tasks.device_slots import DEVICE_TAG, count_gpus, count_slots

__all__ = ["DeviceDaskRunner", "local_cluster", "make_runner"]


class DeviceDaskRunner(DaskTaskRunner):
    """Prefect's Dask runner that reserves a device for tasks tagged `device`."""

    def __enter__(self) -> Self:
        """Connect, and refuse a cluster that cannot do this run.

        Raises:
            ClusterUnavailable: the scheduler does not answer.
            ConfigurationError: workers have other settings, or none offers a device.
        """
        super().__enter__()  # type: ignore[no-untyped-call]
        self._tags = LimitedTags()
        if self.address:
            try:
                self._refuse_unlike_cluster(self.address)
            except BaseException as error:
                self.__exit__(type(error), error, error.__traceback__)
                raise
        return self

    def _refuse_unlike_cluster(self, address: str) -> None:
        try:
            client = self.client
        except OSError as error:
            remedy = "Check CROSS_LORA_DASK_ADDRESS, or start the scheduler; then run the same again."
            raise ClusterUnavailable("an answer", type(error).__name__, address, remedy) from error
        refuse_unlike(client.run(fingerprint))
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if workers and not any(one["resources"].get(DEVICE_TAG) for one in workers):
            raise no_device(address, f'Start its workers with: dask worker --resources "{DEVICE_TAG}=1"')

    def submit(  # type: ignore[override]
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectDaskFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> PrefectDaskFuture[Any]:
        """Submit a task, with a device where it needs one."""
        reserved = {DEVICE_TAG: 1} if DEVICE_TAG in task.tags else {}
        with dask.annotate(resources=reserved):  # type: ignore[attr-defined]
            return super().submit(self._tags.lean(task), bare(parameters), wait_for, dependencies)


def make_runner(settings: Settings) -> DeviceDaskRunner:
    """The runner of the settings, on their cluster or one of this machine."""
    if settings.dask_address:
        return DeviceDaskRunner(address=settings.dask_address)
    return DeviceDaskRunner(cluster_class=SpecCluster, cluster_kwargs=local_cluster(settings))


def local_cluster(settings: Settings) -> dict[str, Any]:
    """Arguments of a `SpecCluster`: processes with one device slot each, task threads spread over them."""
    count = min(count_slots(settings), settings.workers)
    options = {
        "host": "127.0.0.1",
        "nthreads": -(-settings.workers // count),
        "resources": {DEVICE_TAG: 1},
        "memory_limit": 0,  # layer groups bound it; a worker killed in an evaluation would only repeat it
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.ERROR,
    }
    workers = {
        number: {"cls": Nanny, "options": options | {"env": _environment(number, settings)}}
        for number in range(count)
    }
    address = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": address}
    return {"workers": workers, "scheduler": scheduler, "silence_logs": logging.ERROR}


def _environment(number: int, settings: Settings) -> dict[str, str]:
    """What a worker process sees besides the environment of the flow: one slot, on one GPU."""
    environment = {"CROSS_LORA_DEVICE_SLOTS": "1"}
    gpus = count_gpus(settings)
    if gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number % gpus]
    return environment
