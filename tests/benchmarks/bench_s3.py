"""Bytes and requests of migrations on S3, and the speed of several streams; prints one JSON document.

    python -m tests.benchmarks.bench_s3 --layers 8 --width 512 --rank 128

A SeaweedFS on loopback holds two random bases, ten adapters and the store. Every request of this process is
counted where botocore sends it. Least is what has to move: of a base the tensors that are factorized, of an
adapter itself and its successor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUCKET = "bench"
ROLES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def build_inputs(folder: Path, options: argparse.Namespace) -> None:
    """Two bases of other shapes, and ten adapters of the first, of rank 16 on all seven roles."""
    import torch

    from tests.support.fleets import make_adapter
    from tests.support.pico_models import build_pico

    sizes = {"layers": options.layers, "dtype": torch.float16, "seed": options.seed}
    source = build_pico("llama", folder / "bases/source", width=options.width, **sizes)
    build_pico("qwen2", folder / "bases/target", width=options.width * 5 // 4, **sizes)
    for number in range(1, options.adapters + 1):
        fields = {"r": 16, "lora_alpha": 32, "target_modules": ROLES}
        make_adapter(source, folder / f"adapters/a{number}", seed=options.seed + number, **fields)


def bytes_of(folder: Path) -> int:
    """Of config and weights, which is all of an adapter that is read."""
    return sum(
        (folder / name).stat().st_size for name in ("adapter_config.json", "adapter_model.safetensors")
    )


def least_of_base(location: str) -> dict[str, int]:
    """Bytes of the tensors in decoder layers, and of the whole base."""
    from cross_lora_core.models import open_base

    base = open_base(location)
    inside = [
        one for name, one in base._checkpoint.tensors.items() if ".layers." in name and len(one.shape) == 2
    ]
    norms = [one for name, one in base._checkpoint.tensors.items() if name.endswith("layernorm.weight")]
    return {"whole": base.stored_bytes, "least": sum(one.stop - one.start for one in [*inside, *norms])}


def measure_steps(place: Callable[[str], str], local: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Traffic of each step, one after the other in this process."""
    from cross_lora_core.migration import MigrationRequest
    from cross_lora_core.models import open_base
    from cross_lora_core.storage import open_store
    from flows.factorize_base import factorize_base
    from flows.migrate_fleet import migrate_fleet
    from tests.support.traffic import counting

    source, target, store = place("bases/source"), place("bases/target"), open_store(place("store"))
    steps: dict[str, Any] = {}

    def step(name: str, work: Callable[[], Any], least: Callable[[], int]) -> None:
        with counting() as traffic:
            work()
        steps[name] = traffic.summary() | {"least": least()}

    def migrate(number: int) -> None:
        request = MigrationRequest(
            source=source, targets=[target], adapters=[place(f"adapters/a{number}")], rank=options.rank
        )
        outcome = migrate_fleet(request)
        assert outcome.complete, outcome

    def moved(number: int) -> int:
        """Bytes of an adapter and of what came of it."""
        keys = [key for key in store.list("adapters/") if f"/a{number}/" in key or f"a{number}-" in key]
        found = [store.stat(key) for key in keys]
        return bytes_of(local / f"adapters/a{number}") + sum(one.size for one in found if one)

    whole = least_of_base(source)
    step("digest of the source, once", lambda: open_base(source, shared=store).digest, lambda: whole["whole"])
    step("factorize the source", lambda: factorize_base(source, options.rank), lambda: whole["least"])
    for number in range(1, options.adapters + 1):
        step(f"adapter {number}", lambda: migrate(number), lambda: moved(number))  # noqa: B023
    return steps


def measure_streams(place: Callable[[str], str], size: int) -> dict[str, Any]:
    """Megabytes per second up and down, over one stream and over several, the best of three in turn."""
    import dataclasses

    from cross_lora_core.storage import S3Location, S3Store

    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "object"
        file.write_bytes(os.urandom(size))
        for turn in range(3):
            for name, streams in (("one", 1), ("several", 8)):
                at = S3Location.parse(place(f"speed/{name}-{turn}"))
                options = dataclasses.replace(
                    at.options, streams=streams, cache=Path(scratch) / f"{name}-{turn}"
                )
                store = S3Store(at.bucket, at.prefix, options)
                seconds = {"up": _timed(lambda: store.put("object", file))}  # noqa: B023
                reader = S3Store(
                    at.bucket,
                    at.prefix,
                    dataclasses.replace(options, cache=Path(scratch) / f"down-{name}-{turn}"),
                )
                seconds["down"] = _timed(lambda: reader.fetch("object"))  # noqa: B023
                for way, taken in seconds.items():
                    best[f"{way}, {name}"] = max(best.get(f"{way}, {name}", 0.0), size / 2**20 / taken)
    ratios = {way: best[f"{way}, several"] / best[f"{way}, one"] for way in ("up", "down")}
    return {"megabytes": size >> 20, "MB/s": best, "several over one": ratios}


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import botocore
    import torch

    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "botocore": botocore.__version__,
    }


def main() -> None:
    """Build, run every step and print the results with the machine, the versions and the seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--adapters", type=int, default=10)
    parser.add_argument("--group-bytes", type=int, default=4 << 20)
    parser.add_argument("--megabytes", type=int, default=256, help="of the object whose speed is taken")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-s3-") as scratch:
        print(json.dumps(measure(Path(scratch), options), indent=2))


def measure(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, below a folder that is thrown away."""
    os.environ |= {
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "CROSS_LORA_HOME": str(scratch / "home"),
        "CROSS_LORA_GROUP_BYTES": str(options.group_bytes),
        "PREFECT_HOME": str(scratch / "prefect"),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "HF_HUB_OFFLINE": "1",
    }
    from tests.support.buckets import upload
    from tests.support.seaweed import running_seaweed

    build_inputs(scratch / "local", options)
    with running_seaweed(scratch / "seaweed") as server:
        os.environ |= server.environment
        client = server.client()
        client.create_bucket(Bucket=BUCKET)
        for name in ("bases", "adapters"):
            upload(client, scratch / "local" / name, BUCKET, name)

        def place(prefix: str) -> str:
            return server.url(BUCKET, prefix)

        os.environ["CROSS_LORA_STORE"] = place("store")
        return {
            "machine": machine(),
            "options": vars(options),
            "steps": measure_steps(place, scratch / "local", options),
            "streams": measure_streams(place, options.megabytes << 20),
        }


if __name__ == "__main__":
    main()
