"""The database's errors as ours: try again, correct a setting, or correct a value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cross_lora_core.errors import CatalogUnavailable, ConfigurationError, CrossLoraError, FinalError

__all__ = ["translating"]

_CREDENTIALS = "Correct the user and password in CROSS_LORA_CATALOG."
_SETTINGS = {
    "password authentication failed": _CREDENTIALS,
    "no password supplied": _CREDENTIALS,
    "no pg_hba.conf entry": "Let the server accept this user from this machine (pg_hba.conf).",
    r'(database|role) ".*" does not exist': "Create it (createdb, createuser) or correct CROSS_LORA_CATALOG.",
    r"invalid (connection option|port number|\w+ value)": "Correct the URL in CROSS_LORA_CATALOG.",
    "permission denied": "Grant this user the tables of the catalog, or correct CROSS_LORA_CATALOG.",
    "unable to open database file": "Give this user the file and its folder, or correct CROSS_LORA_CATALOG.",
    "readonly database": "Give this user write permission on the file, or correct CROSS_LORA_CATALOG.",
    "file is not a database": "Name another file in CROSS_LORA_CATALOG, or restore this one.",
    "disk image is malformed": "Restore the file from a backup, or name another in CROSS_LORA_CATALOG.",
}
_RETRY = "Check that the database runs and can be written; the same command can be run again."


@contextmanager
def translating(url: str) -> Iterator[None]:
    """Within the block, the database's errors become ours; others pass.

    Raises:
        CatalogUnavailable: no answer, or a lock was not freed in time.
        ConfigurationError: the database cannot be used as it is set.
        FinalError: a value that the tables do not accept.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise CatalogUnavailable("a free connection", "none in time", url, _RETRY) from error
    except DBAPIError as error:
        translated = _translated(error, url)
        if translated is None:
            raise
        raise translated from error


def _translated(error: DBAPIError, url: str) -> CrossLoraError | None:
    said = str(error.orig).strip().partition("\n")[0]
    for words, remedy in _SETTINGS.items():
        if re.search(words, said):
            return ConfigurationError("a database that can be used", said, url, remedy)
    if isinstance(error, OperationalError | InterfaceError):
        return CatalogUnavailable("an answer", said, url, _RETRY)
    if isinstance(error, IntegrityError | DataError):
        remedy = "Correct the value that is named; nothing of this unit of work was kept."
        return FinalError("values that the catalog accepts", said, url, remedy)
    return None
