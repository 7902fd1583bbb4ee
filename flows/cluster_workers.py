"""The workers of a cluster that somebody else started: what must be so before a run is given to them.

Their settings are their own, from their environment, so that no secret travels
with a task. A run whose workers keep things elsewhere would lose its results;
it is refused before it starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from cross_lora_core import __version__
from cross_lora_core.errors import ConfigurationError
from cross_lora_core.settings import load_settings

__all__ = ["Fingerprint", "fingerprint", "no_device", "refuse_unlike"]

Fingerprint = Mapping[str, str]
"""Environment variable to a digest of its value; never the value, which may hold a password."""


def fingerprint() -> Fingerprint:
    """Of the process that calls it."""
    values = {"version of cross-lora-fleet": __version__, **load_settings().shared}
    return {name: hashlib.sha256(repr(value).encode()).hexdigest() for name, value in values.items()}


def refuse_unlike(found: Mapping[str, Fingerprint]) -> None:
    """Compare workers' fingerprints with this process's.

    Raises:
        ConfigurationError: one differs; names the worker and the settings.
    """
    ours = fingerprint()
    for worker, theirs in found.items():
        different = [name for name, digest in ours.items() if theirs.get(name) != digest]
        if different:
            raise ConfigurationError(
                "the same settings on every worker as in the flow's process",
                f"other values of {', '.join(different)}",
                f"worker {worker}",
                "Start the cluster's workers with the environment of the flow.",
            )


def no_device(where: str, remedy: str) -> ConfigurationError:
    """The error for a cluster on which device tasks would wait for ever."""
    return ConfigurationError("a worker that offers a device", "none that does", where, remedy)
