"""A throwaway PostgreSQL server on loopback, from installed binaries."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from tests.support.servers import free_port, kill_all, start, stop, wait_until, with_descendants

USER = "catalog"
_numbers = count()


@dataclass
class Postgres:
    """A server that can be killed and started again over the same data."""

    folder: Path
    port: int
    command: list[str]

    @property
    def url(self) -> str:
        """SQLAlchemy URL, without a database name at its end."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}"

    def start(self) -> None:
        log = self.folder / "log"
        self.process = start(self.command, log, cwd=self.folder)
        wait_until(self._is_up, self.process, log)

    def kill(self) -> None:
        """The postmaster first, so that it cannot tell its children; each of them leads a session of its own."""
        kill_all(with_descendants(self.process.pid))
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGQUIT)
        stop(self.process)

    def empty_database(self) -> str:
        """The URL of a new one."""
        name = f"database_{next(_numbers)}"
        self._execute(f"CREATE DATABASE {name}")
        return f"{self.url}/{name}"

    def _is_up(self) -> bool:
        try:
            self._execute("SELECT 1")
        except OperationalError:
            return False
        return True

    def _execute(self, statement: str) -> None:
        engine = create_engine(f"{self.url}/postgres", isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


def find_binary(name: str) -> str | None:
    """On the PATH, or where Debian puts it."""
    found = shutil.which(name)
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return found or next((str(path) for path in candidates), None)


def why_not() -> str:
    """What keeps a server from being started here; empty if nothing does."""
    if find_binary("initdb") is None or find_binary("postgres") is None:
        return "no PostgreSQL binaries (initdb, postgres) on this machine"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL does not run as root, and there is no setpriv to become another user"
    return ""


def _as_other_user() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []


@contextmanager
def killable_postgres(*, fsync: bool = True) -> Iterator[Postgres]:
    """A server whose committed data survive `kill()`, and with fsync the machine's too."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    folder.chmod(0o777)
    data, port, wrap = folder / "data", free_port(), _as_other_user()
    initdb, binary = find_binary("initdb"), find_binary("postgres")
    assert initdb is not None
    assert binary is not None
    options = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": folder,
        "fsync": "on" if fsync else "off",
    }
    command = [*wrap, binary, "-D", str(data), "-p", str(port)]
    command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    server = Postgres(folder, port, command)
    create = [*wrap, initdb, "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
    try:
        subprocess.run(create, check=True, capture_output=True, cwd=folder)
        server.start()
        yield server
    finally:
        if hasattr(server, "process"):
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_postgres() -> Iterator[str]:
    """The server's SQLAlchemy URL, without a database name at its end."""
    with killable_postgres(fsync=False) as server:
        yield server.url
