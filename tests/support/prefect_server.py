"""A throwaway Prefect server on loopback, with a password, on SQLite or PostgreSQL."""

from __future__ import annotations

import base64
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError

from tests.support.servers import free_port, start, stop, wait_until

AUTH = "fleet:of-a-test"


@dataclass
class PrefectServer:
    """A server that can be killed and started again over the same database.

    Attributes:
        folder: its PREFECT_HOME.
        auth: `user:password` that the API asks for.
        settings: `PREFECT_SERVER_…` and others, of the server's process alone.
    """

    folder: Path
    port: int
    auth: str = AUTH
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        """Of its clients."""
        return {
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_AUTH_STRING": self.auth,
            "PREFECT_HOME": str(self.folder),
        }

    def start(self, *, seconds: float = 240) -> None:
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(self.port)]
        log = self.folder / "server.log"
        self.process = start(command, log, env=self._own_environment())
        wait_until(self._is_up, self.process, log, seconds)

    def kill(self) -> None:
        stop(self.process, hard=True)

    def _own_environment(self) -> dict[str, str]:
        return {
            "PREFECT_HOME": str(self.folder),
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_AUTH_STRING": self.auth,
            "PREFECT_API_AUTH_STRING": self.auth,
            "PREFECT_SERVER_UI_API_URL": self.api_url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            **self.settings,
        }

    def _is_up(self) -> bool:
        """It answers a question that needs its database."""
        secret = base64.b64encode(self.auth.encode()).decode()
        question = urllib.request.Request(
            f"{self.api_url}/flows/count",
            method="POST",
            data=b"{}",
            headers={"Authorization": f"Basic {secret}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(question, timeout=5) as answer:
                return answer.status == 200
        except (URLError, OSError):
            return False


@contextmanager
def running_prefect(folder: Path, *, database: str = "", **settings: str) -> Iterator[PrefectServer]:
    """A server with its own PREFECT_HOME.

    Args:
        folder: made if need be.
        database: `postgresql+asyncpg://…`; by default SQLite in the folder.
        settings: further environment variables of the server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if database:
        settings["PREFECT_API_DATABASE_CONNECTION_URL"] = database
    server = PrefectServer(folder, free_port(), settings=settings)
    server.start()
    try:
        yield server
    finally:
        server.kill()
