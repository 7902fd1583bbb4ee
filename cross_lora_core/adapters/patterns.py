"""Regular expressions that come with an adapter: refused where matching them could take for ever.

PEFT matches several fields of a config as expressions. A repeated group, such as
`(a+)+`, takes exponentially long on names that do not match; so does a long row of
repetitions, in a power of their number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["LONGEST_NAME", "runaway_pattern"]

LONGEST_NAME = 200
"""Characters; no module of a real model has a longer name."""

_LONGEST = 2000
_BY_MODULE = ("rank_pattern", "alpha_pattern")
_BY_MODEL = ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save")
_REPETITIONS = {_BY_MODULE: 3, _BY_MODEL: 6}
"""At most so many in one expression; the first kind is matched once per module and key."""

_ESCAPED = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]")
_REPEATED_GROUP = re.compile(r"\)\s*[*+{]")
_REPETITION = re.compile(r"[*+{]")


def runaway_pattern(raw: Mapping[str, Any]) -> str | None:
    """The first expression of a config that is not one, or could run away; None if all are fine."""
    for fields, most in _REPETITIONS.items():
        for pattern in (one for name in fields for one in _texts(raw.get(name))):
            if not _is_tame(pattern, most):
                return pattern
    return None


def _texts(value: Any) -> Iterator[str]:
    yield from (
        str(one) for one in (value if isinstance(value, Mapping | list) else [value] if value else [])
    )


def _is_tame(pattern: str, most: int) -> bool:
    plain = _ESCAPED.sub("x", pattern)
    if len(pattern) > _LONGEST or _REPEATED_GROUP.search(plain) or len(_REPETITION.findall(plain)) > most:
        return False
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True
