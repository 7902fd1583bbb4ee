"""Values are checked before they are written, because the two databases differ in what they let through."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
        elif _is_undefined(value) or (isinstance(value, list) and any(map(_is_undefined, value))):
            raise _undefined(table, name)


def _check_length(table: SqlTable, name: str, value: str) -> None:
    kind = table.c[name].type
    limit = kind.length if isinstance(kind, String) and not isinstance(kind, Text) else None
    if limit is not None and len(value) > limit:
        got = f"{len(value)}, {value[:40]}…"
        where, remedy = f"{table.name}.{name}", "Use a shorter one."
        raise ConfigurationError(f"at most {limit} characters", got, where, remedy)


def _is_undefined(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _undefined(table: SqlTable, name: str) -> FinalError:
    remedy = "The model or the adapter gave an undefined result; check it with `cross-lora adapter check`."
    return FinalError("finite numbers", "NaN or infinity", f"{table.name}.{name}", remedy)


def json_safe(value: Any) -> Any:
    """The value as JSON has it: null for NaN and infinity, text for what it does not know."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): json_safe(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(one) for one in value]
    return value if value is None or isinstance(value, str | int) else str(value)
