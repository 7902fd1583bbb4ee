"""A receiver in this process, with a secret per sender and rules for one model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cross_lora_core.registry import GENERIC, MLFLOW, SignedHeaders, load_config, sign
from cross_lora_core.settings import load_settings
from flows.starting import Started
from tasks.runtime import open_catalog
from tests.support.rows import a_base, an_adapter

SECRETS = {"mlflow": "mlflow-s3cret", "huggingface": "hub-sécret", "generic": "generic-s3cret"}
CONFIG = """
mlflow: [{model: llama, base: old, successor: new, deprecated_by: [{tag: deprecated}]}]
huggingface: [{model: org/old, base: old, successor: new, deprecated_by: [{ref: refs/tags/deprecated}]}]
generic: [{model: llama, base: old, successor: new}, {model: unknown, base: absent}]
"""
TAGGED = {
    "entity": "model_version_tag",
    "action": "set",
    "timestamp": "2026-11-25T00:00:00Z",
    "data": {"name": "llama", "version": "1", "key": "deprecated", "value": "true"},
}
PUSHED = {
    "event": {"action": "update", "scope": "repo.content"},
    "repo": {"type": "model", "name": "org/old", "id": "1", "headSha": "2"},
    "updatedRefs": [{"ref": "refs/tags/deprecated", "oldSha": None, "newSha": "5"}],
}
SAID = {"type": "base.deprecated", "data": {"model": "llama"}}


@dataclass
class Receiver:
    """A client of the receiver, and what was started through it."""

    client: TestClient
    started: list[str]

    def post(self, sender: str, body: Any, **headers: str) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(f"/webhooks/{sender}", content=data, headers=headers)

    def signed(
        self, sender: str, body: Any, delivery: str = "msg-1", *, age: int = 0, secret: str = ""
    ) -> Any:
        """Send it as the sender does."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if sender == "huggingface":
            given = (secret or SECRETS[sender]).encode()
            return self.client.post(
                "/webhooks/huggingface", content=data, headers={"X-Webhook-Secret": given}
            )
        names: SignedHeaders = MLFLOW if sender == "mlflow" else GENERIC
        stamp, key = str(int(time.time()) - age), (secret or SECRETS[sender]).encode()
        headers = {names.delivery: delivery, names.timestamp: stamp}
        return self.post(sender, data, **headers, **{names.signature: sign(key, delivery, stamp, data)})

    def deliveries(self) -> list[tuple[str, str]]:
        """State and summary of each, the first one first."""
        with open_catalog().begin() as work:
            return [(one.state, one.summary) for one in reversed(work.deliveries())]


@pytest.fixture
def receiver(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    from flows.webhook.app import create_app

    with open_catalog().begin() as work:
        old, _ = a_base(work, "old"), a_base(work, "new")
        an_adapter(work, old)
    (tmp_path / "triggers.yaml").write_text(CONFIG)
    for sender, secret in SECRETS.items():
        monkeypatch.setenv(f"CROSS_LORA_WEBHOOK_SECRET_{sender.upper()}", secret)
    started: list[str] = []

    def start(source: str, _options: Any, requested_by: str) -> Started:
        started.append(f"{source} by {requested_by}")
        return Started(source, "new", ("tickets",), "started", "run-1")

    monkeypatch.setattr("flows.deliveries.start_source", start)
    app = create_app(load_settings(), load_config(tmp_path / "triggers.yaml"))
    with TestClient(app) as client:
        yield Receiver(client, started)
