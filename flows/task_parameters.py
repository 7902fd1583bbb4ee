"""Parameters of task runs, wrapped so that Prefect passes them on at the least cost; tasks see them bare."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from prefect.futures import PrefectFuture
from prefect.utilities.annotations import BaseAnnotation, opaque, quote

__all__ = ["bare", "result_of", "whole"]

_ValueT = TypeVar("_ValueT")


def whole(value: _ValueT) -> _ValueT:
    """The value as a parameter that Prefect passes on unsearched; the task receives it as it was.

    A plan of one adapter has a thousand fields, and Prefect would visit all of them when a task run
    is submitted and again when it starts.
    """
    return cast(_ValueT, quote(value))


def result_of(step: PrefectFuture[Any]) -> Any:
    """What a task run returned, as a parameter of one that waits for it.

    For a future as it is Prefect also asks the server, when the waiting task run starts, in which state the
    other one is.
    """
    return opaque(step)


def bare(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters without these wraps, for a cluster, which would take them for plain tuples."""
    return {
        name: value.unwrap() if isinstance(value, BaseAnnotation) else value
        for name, value in parameters.items()
    }
