"""Tasks on Ray: device tasks take one GPU, or one unit of the resource `device` where there are none.

An existing cluster of CPU machines is started with `ray start --resources
'{"device": 1}'`. Without an address a cluster of this machine is made for the
run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Self

import ray
from prefect.futures import PrefectFuture
from prefect.tasks import Task
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options
from prefect_ray.task_runners import PrefectRayFuture

from cross_lora_core.errors import ClusterUnavailable
from cross_lora_core.settings import Settings, load_settings
from flows.cluster_workers import fingerprint, no_device, refuse_unlike
from flows.tag_limits import LimitedTags
from flows.task_parameters import bare
from tasks.device_slots import DEVICE_TAG, count_gpus, count_slots

__all__ = ["DeviceRayRunner", "device_of", "make_runner"]

_OBJECT_STORE_BYTES = 256 * 2**20
"""Of a local cluster; references and numbers are all that travels between tasks."""


class DeviceRayRunner(RayTaskRunner[Any]):  # type: ignore[misc]
    """Prefect's Ray runner that reserves a device for tasks tagged `device`.

    It also gives Ray the tasks waited for as inputs. Prefect's own runner lets
    the started task wait for them while it holds its device, and a machine with
    one device then waits for itself.
    """

    def __enter__(self) -> Self:
        """Connect, and refuse a cluster that cannot do this run.

        Raises:
            ClusterUnavailable: the cluster does not answer.
            ConfigurationError: workers have other settings, or none offers a device.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            super().__enter__()
        except ConnectionError as error:
            remedy = "Check CROSS_LORA_RAY_ADDRESS, or start the cluster; then run the same again."
            where = self.address or "a local Ray cluster"
            raise ClusterUnavailable("an answer", type(error).__name__, where, remedy) from error
        self._awaited: list[Any] = []
        self._tags = LimitedTags()
        try:
            self._device = device_of(ray.cluster_resources(), load_settings())  # type: ignore[no-untyped-call]
            if self.address:
                refuse_unlike({self.address: ray.get(ray.remote(fingerprint).remote())})
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> PrefectRayFuture[Any]:
        """Submit a task, with a device where it needs one; called from the flow's thread alone."""
        awaited = list(wait_for or ())
        self._awaited = [one.wrapped_future for one in awaited if isinstance(one, PrefectRayFuture)]
        with remote_options(**(self._device if DEVICE_TAG in task.tags else {})):
            return super().submit(self._tags.lean(task), bare(parameters), awaited, dependencies)

    def _exchange_prefect_for_ray_futures(
        self, kwargs_prefect_futures: dict[str, Any]
    ) -> tuple[dict[str, Any], list[Any]]:
        exchanged, references = super()._exchange_prefect_for_ray_futures(kwargs_prefect_futures)
        return exchanged, [*references, *self._awaited]


def device_of(resources: Mapping[str, float], settings: Settings) -> dict[str, Any]:
    """The options of `ray.remote` that reserve a device on this cluster."""
    if settings.device == "cuda" or (settings.device == "auto" and resources.get("GPU")):
        return {"num_gpus": 1}
    if not resources.get(DEVICE_TAG):
        raise no_device(
            settings.ray_address or "a local Ray cluster",
            f"Start its nodes with: ray start --resources '{{\"{DEVICE_TAG}\": 1}}'; "
            "or set CROSS_LORA_DEVICE=cuda where GPU nodes are started on demand.",
        )
    return {"resources": {DEVICE_TAG: 1}}


def make_runner(settings: Settings) -> DeviceRayRunner:
    """The runner of the settings, on their cluster or one of this machine."""
    if settings.ray_address:
        return DeviceRayRunner(settings.ray_address, {"log_to_driver": False})
    slots = count_slots(settings)
    local = {
        "num_cpus": settings.workers,
        "num_gpus": min(slots, count_gpus(settings)),
        "resources": {DEVICE_TAG: slots},
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "log_to_driver": False,
    }
    return DeviceRayRunner(init_kwargs=local)
