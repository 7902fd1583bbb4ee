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
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUCKET = "bench"
Place = Callable[[str], str]
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


def measure_steps(place: Place, local: Path, options: argparse.Namespace) -> dict[str, Any]:
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
        steps[name] = _compared(traffic, least())

    def migrate(*numbers: int) -> None:
        request = MigrationRequest(
            source=source,
            targets=[target],
            adapters=[place(f"adapters/a{number}") for number in numbers],
            rank=options.rank,
        )
        outcome = migrate_fleet(request)
        assert outcome.complete, outcome

    def moved(*numbers: int) -> int:
        """Bytes of adapters and of what came of them."""
        keys = [
            key for key in store.list("adapters/") if key.split("/")[-3] in {f"a{one}" for one in numbers}
        ]
        found = [store.stat(key) for key in keys]
        return sum(bytes_of(local / f"adapters/a{one}") for one in numbers) + sum(
            one.size for one in found if one
        )

    whole = least_of_base(source)
    step("digest of the source, once", lambda: open_base(source, shared=store).digest, lambda: whole["whole"])
    step("factorize the source", lambda: factorize_base(source, options.rank), lambda: whole["least"])
    for number in (1, 2, 3):
        step(f"adapter {number}", lambda: migrate(number), lambda: moved(number))  # noqa: B023
    rest = range(4, options.adapters + 1)
    step(f"{len(rest)} more at once", lambda: migrate(*rest), lambda: moved(*rest))
    return steps


def _compared(traffic: Any, least: int) -> dict[str, Any]:
    moved = traffic.received + traffic.sent
    between = traffic.of("store/projections")
    return {
        "least": least,
        "over least": moved / least,
        "over least without projections": (moved - between.received - between.sent) / least,
    } | traffic.summary()


def measure_streams(place: Place, size: int, turns: int = 3) -> dict[str, Any]:
    """Megabytes per second up and down, over one stream and over eight in turn, the best of some turns."""
    best: dict[str, float] = {}
    for _ in range(turns):
        for streams in (1, 8):
            with tempfile.TemporaryDirectory() as scratch:
                taken = _there_and_back(place(f"speed/{uuid.uuid4()}"), Path(scratch), size, streams)
            for way, seconds in taken.items():
                name = f"{way}, {streams} streams"
                best[name] = max(best.get(name, 0.0), size / 2**20 / seconds)
    ratios = {way: best[f"{way}, 8 streams"] / best[f"{way}, 1 streams"] for way in ("up", "down")}
    return {"megabytes": size >> 20, "MB/s": best, "eight over one": ratios, "turns": turns}


def measure_paced(server: Any, size: int) -> dict[str, Any]:
    """The same where each connection is as slow as one to a server far away."""
    from tests.support.paced_proxy import paced_proxy

    with paced_proxy(server.port, 20 << 20) as port:
        paced = f"http://127.0.0.1:{port}"
        return measure_streams(lambda prefix: server.url(BUCKET, prefix, endpoint=paced), size, turns=1)


def _there_and_back(url: str, scratch: Path, size: int, streams: int) -> dict[str, float]:
    """Seconds that a put takes, and the fetch of a machine that has no copy, hashing included."""
    from cross_lora_core.storage import open_store

    (scratch / "object").write_bytes(os.urandom(size))
    writer, reader = (open_store(f"{url}&streams={streams}&cache={scratch / name}") for name in ("a", "b"))
    return {
        "up": _timed(lambda: writer.put("object", scratch / "object")),
        "down": _timed(lambda: reader.fetch("object")),
    }


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


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
    from tests.benchmarks.machine import machine
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
            "machine": machine("botocore"),
            "options": vars(options),
            "steps": measure_steps(place, scratch / "local", options),
            "streams on loopback": measure_streams(place, options.megabytes << 20),
            "streams of 20 MB/s each": measure_paced(server, options.megabytes << 20),
        }


if __name__ == "__main__":
    main()
