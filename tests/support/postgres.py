"""A throwaway PostgreSQL server on loopback, from installed binaries."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import free_port

USER = "catalog"


def find_binary(name: str) -> str | None:
    """On the PATH, or where Debian puts it."""
    found = shutil.which(name)
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return found or next((str(path) for path in candidates), None)


def why_not() -> str:
    """What keeps a server from being started here; empty if nothing does."""
    if find_binary("initdb") is None or find_binary("pg_ctl") is None:
        return "no PostgreSQL binaries (initdb, pg_ctl) on this machine"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL does not run as root, and there is no setpriv to become another user"
    return ""


def _as_other_user() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []


@contextmanager
def running_postgres() -> Iterator[str]:
    """The server's SQLAlchemy URL, without a database name at its end."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    folder.chmod(0o777)
    data, port, wrap = folder / "data", free_port(), _as_other_user()
    initdb, control = find_binary("initdb"), find_binary("pg_ctl")
    assert initdb is not None
    assert control is not None
    quiet = {"check": True, "capture_output": True, "cwd": folder}
    try:
        subprocess.run(
            [*wrap, initdb, "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"], **quiet
        )
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        log = str(folder / "log")
        start = [*wrap, control, "-D", str(data), "-l", log, "-w", "-o", options, "start"]
        started = subprocess.run(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        assert started.returncode == 0, Path(log).read_text()
        yield f"postgresql+psycopg://{USER}@127.0.0.1:{port}"
    finally:
        subprocess.run(
            [*wrap, control, "-D", str(data), "-m", "immediate", "stop"], check=False, capture_output=True
        )
        shutil.rmtree(folder, ignore_errors=True)
