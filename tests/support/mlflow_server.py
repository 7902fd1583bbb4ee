"""A throwaway MLflow server on loopback that may send webhooks to loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.fernet import Fernet

from tests.support.servers import free_port, running


@contextmanager
def running_mlflow(folder: Path) -> Iterator[str]:
    """The server's tracking URI."""
    folder.mkdir(parents=True)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--workers",
        1,
    ]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    environment = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with running(command, folder / "log", port=port, env=environment, cwd=folder):
        yield f"http://127.0.0.1:{port}"
