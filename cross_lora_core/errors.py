"""Every error this library raises on purpose.

    CrossLoraError
    ├── RetryableError            the same call may succeed later
    │   ├── StoreUnavailable      the store did not answer, or answered 5xx
    │   ├── CatalogUnavailable    the database did not answer, or a lock timed out
    │   ├── PrefectUnavailable    Prefect's API did not answer
    │   ├── ClusterUnavailable    the Dask or Ray cluster did not answer
    │   └── RegistryUnavailable   the model registry did not answer
    └── FinalError                the same call fails again until something is changed
        ├── ConfigurationError    a setting or a command-line value
        ├── BaseModelError        a base model folder cannot be used as it is
        │   └── UnknownArchitecture
        ├── AdapterRefused        an adapter this project cannot move
        ├── MethodNotApplicable   the method cannot serve this pair of bases
        ├── TrainingDiverged      a loss became infinite or undefined
        ├── ObjectNotFound        the store has no such key
        ├── ObjectCorrupted       stored bytes differ from their checksum
        ├── ObjectExists          another object already has this key
        ├── StoreRefused          no permission, no bucket, no space, read-only
        ├── CatalogSchemaError    the database is older or newer than the code
        ├── RecordNotFound        the catalog has no such row
        ├── RecordConflict        the row contradicts one that is there
        └── EventRefused          a webhook delivery that is not as its sender makes it
            └── SignatureRefused  … or that nobody with the secret signed, or too long ago

Each takes four positional strings, so that it survives pickling between a
worker and the flow: what was expected, what was got, where, what to do next.
"""

from __future__ import annotations

__all__ = [
    "AdapterRefused",
    "BaseModelError",
    "CatalogSchemaError",
    "CatalogUnavailable",
    "ClusterUnavailable",
    "ConfigurationError",
    "CrossLoraError",
    "EventRefused",
    "FinalError",
    "MethodNotApplicable",
    "ObjectCorrupted",
    "ObjectExists",
    "ObjectNotFound",
    "PrefectUnavailable",
    "RecordConflict",
    "RecordNotFound",
    "RegistryUnavailable",
    "RetryableError",
    "SignatureRefused",
    "StoreRefused",
    "StoreUnavailable",
    "TrainingDiverged",
    "UnknownArchitecture",
]


class CrossLoraError(Exception):
    """Base of all errors raised on purpose; catch this to catch them all."""

    retryable = False

    def __init__(self, expected: str, got: str, where: str, remedy: str, /) -> None:
        super().__init__(expected, got, where, remedy)
        self.expected = expected
        self.got = got
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        return f"expected {self.expected}, got {self.got} (in {self.where}). {self.remedy}"


class RetryableError(CrossLoraError):
    """The same call may succeed later: a Prefect task retries it."""

    retryable = True


class FinalError(CrossLoraError):
    """The same call fails again until somebody changes something."""


class StoreUnavailable(RetryableError):
    """The store did not answer, or answered with a server error."""


class CatalogUnavailable(RetryableError):
    """The database did not answer, or a lock timed out."""


class PrefectUnavailable(RetryableError):
    """Prefect's API, a server's or the short-lived one, did not answer."""


class ClusterUnavailable(RetryableError):
    """The Dask or Ray cluster of the settings did not answer."""


class RegistryUnavailable(RetryableError):
    """The model registry that is polled did not answer."""


class ConfigurationError(FinalError):
    """A setting or a command-line value cannot be used."""


class BaseModelError(FinalError):
    """A base model folder cannot be used as it is: missing file, shard, tensor or role."""


class UnknownArchitecture(BaseModelError):
    """No table of roles is known for this architecture."""


class AdapterRefused(FinalError):
    """The adapter is not something this project can move; the reason says why."""


class MethodNotApplicable(FinalError):
    """The method cannot serve this pair of bases, for example `copy` between widths."""


class TrainingDiverged(FinalError):
    """A loss became infinite or undefined; the same recipe does it again."""


class ObjectNotFound(FinalError):
    """The store has no object under this key."""


class ObjectCorrupted(FinalError):
    """Stored bytes differ from the checksum recorded when they were written."""


class ObjectExists(FinalError):
    """Another object with other bytes already has this key."""


class StoreRefused(FinalError):
    """The store answered no: permission, bucket, space or a read-only folder."""


class CatalogSchemaError(FinalError):
    """The database's schema is older or newer than this code."""


class RecordNotFound(FinalError):
    """The catalog has no such row."""


class RecordConflict(FinalError):
    """The row contradicts one that is already there."""


class EventRefused(FinalError):
    """A webhook delivery is not as its sender makes it; the message repeats nothing of its content."""


class SignatureRefused(EventRefused):
    """A webhook delivery was not signed with the secret, or too long ago."""
