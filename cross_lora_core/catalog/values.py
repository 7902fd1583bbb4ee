"""Values are checked before they are written, because the two databases differ in what they let through."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import String, Text
from sqlalchemy import Table as SqlTable

from cross_lora_core.errors import ConfigurationError, FinalError

__all__ = ["check_values", "json_safe"]


def check_values(table: SqlTable, values: Mapping[str, Any]) -> None:
    """Nothing, if both databases would take the values of a row.

    Raises:
        ConfigurationError: a text is too long.
        FinalError: a number, or one of a list of numbers, is not finite.
    """
    for name, value in values.items():
        if isinstance(value, str):
            _check_length(table, name, value)
        elif isinstance(value, float | list):
            _check_numbers(table, name, value if isinstance(value, list) else [value])


def _check_length(table: SqlTable, name: str, value: str) -> None:
    kind = table.c[name].type
    limit = kind.length if isinstance(kind, String) and not isinstance(kind, Text) else None
    if limit is not None and len(value) > limit:
        got = f"{len(value)}, {value[:40]}…"
        where, remedy = f"{table.name}.{name}", "Use a shorter one."
        raise ConfigurationError(f"at most {limit} characters", got, where, remedy)


def _check_numbers(table: SqlTable, name: str, values: Sequence[Any]) -> None:
    if any(isinstance(one, float) and not math.isfinite(one) for one in values):
        remedy = (
            "The model or the adapter gave an undefined result; check it with `cross-lora adapter check`."
        )
        raise FinalError("finite numbers", "NaN or infinity", f"{table.name}.{name}", remedy)


def json_safe(value: Any) -> Any:
    """The value as JSON has it: null for NaN and infinity, text for what it does not know."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): json_safe(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(one) for one in value]
    return value if value is None or isinstance(value, str | int) else str(value)
