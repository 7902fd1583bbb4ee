"""Frozen values that stand for bases and adapters between tasks, where the things themselves are on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cross_lora_core.models import BaseModel

__all__ = ["TOKENIZER_FILE", "AdapterCandidate", "AdapterRef", "BaseRef", "base_ref"]

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class BaseRef:
    """A base model, identified by content and findable by location (a path or an s3:// URL).

    Attributes:
        digest: of the config and the weights.
        tokenizer: sha256 of `tokenizer.json`, empty if there is none; it decides which tokens are shared.
    """

    name: str
    location: str
    digest: str
    tokenizer: str
    revision: str | None
    family: str
    layers: int
    d_model: int


@dataclass(frozen=True)
class AdapterCandidate:
    """An adapter somebody wants moved; not read yet."""

    name: str
    location: str
    evaluation: str | None = None
    owner: str | None = None


@dataclass(frozen=True)
class AdapterRef:
    """An adapter that was read: what it is and what it needs. `digest` is empty if it was refused unread."""

    name: str
    location: str
    digest: str
    evaluation: str | None
    owner: str | None
    base_name: str | None
    rank: int
    scaling: float | None
    variant: str


def base_ref(base: BaseModel) -> BaseRef:
    """The value that stands for an opened base between tasks."""
    tokenizer = base.files.read(TOKENIZER_FILE) if base.files.has(TOKENIZER_FILE) else b""
    return BaseRef(
        name=base.name,
        location=base.location,
        digest=base.digest,
        tokenizer=hashlib.sha256(tokenizer).hexdigest() if tokenizer else "",
        revision=base.revision,
        family=base.family,
        layers=base.layers,
        d_model=base.d_model,
    )
