"""When Prefect's API does not answer: tell such errors from others, wait until it is back, go on.

Prefect's client repeats requests, but not the first one of a new connection, and
a tagged task opens one: a server that restarts would end every flow run that is
on its way. What a run has stored is found again, so the work is simply begun anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import httpx
from prefect import get_client
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL

from cross_lora_core.errors import CrossLoraError, PrefectUnavailable

__all__ = ["is_outage", "riding_out", "telling_outages", "wait_out"]

_ATTEMPTS = 5
_PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 2.0
_REMEDY = "Check PREFECT_API_URL, or unset it to run without a server; the same command can be run again."

_NOT_REACHED = ("Failed to reach API", "connect to ephemeral Prefect API server")

_ResultT = TypeVar("_ResultT")


def riding_out(attempt: Callable[[], _ResultT]) -> _ResultT:
    """What `attempt` returns; made again whenever Prefect's API went away under it and came back.

    Raises:
        PrefectUnavailable: the API stayed away for five minutes, or went away five times.
    """
    left = _ATTEMPTS
    while True:
        try:
            return attempt()
        except Exception as error:
            if not is_outage(error):
                raise
            left -= 1
            if not left or not _is_back():
                raise _unavailable(error) from error


@contextmanager
def telling_outages() -> Iterator[None]:
    """Within the block, errors that mean that Prefect's API did not answer become ours; others pass.

    Raises:
        PrefectUnavailable: it did not.
    """
    try:
        yield
    except Exception as error:
        if is_outage(error):
            raise _unavailable(error) from error
        raise


def wait_out(steps: Iterable[PrefectFuture[Any]]) -> None:
    """Return when none of these task runs is on its way any more, whatever became of them."""
    for step in steps:
        with suppress(Exception):
            step.wait()


def is_outage(error: BaseException) -> bool:
    """Whether an error, or one that led to it, is that Prefect's API did not answer."""
    return any(map(_says_so, _with_causes(error)))


def _unavailable(error: BaseException) -> PrefectUnavailable:
    """Such an error as ours."""
    said = next(one for one in _with_causes(error) if _says_so(one))
    where = PREFECT_API_URL.value() or "Prefect's short-lived API"
    first = (str(said).splitlines() or [""])[0] or type(said).__name__
    return PrefectUnavailable("an answer", first, where, _REMEDY)


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, up to one that this project raised itself: it says more."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, CrossLoraError):
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _says_so(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in _NOT_REACHED)
    return isinstance(error, httpx.TransportError)


def _is_back() -> bool:
    """Wait for the API; a short-lived one does not come back."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while PREFECT_API_URL.value() and time.monotonic() < deadline:
        if _answers():
            return True
        time.sleep(_LOOK_SECONDS)
    return False


def _answers() -> bool:
    """Whether the API answers a question that needs its database."""
    try:
        with get_client(sync_client=True) as client:
            client.read_flows(limit=1)
    except Exception as error:
        if not is_outage(error):
            raise
        return False
    return True
