"""How similar two bases are, measured once per pair and kept in the store."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from cross_lora_core.migration import BaseSimilarity, base_similarity, similarity_key
from cross_lora_core.models import BaseModel
from tasks.runtime import open_stored, put_once

__all__ = ["known_similarity", "stored_similarity"]


def known_similarity(source: BaseModel, target: BaseModel) -> BaseSimilarity:
    """The similarity of two bases, from the store where it was measured before; nothing is written."""
    return _stored(source, target) or base_similarity(source, target)


def stored_similarity(source: BaseModel, target: BaseModel) -> BaseSimilarity:
    """The similarity of two bases, measured unless it is in the store, where it is then put."""
    found = _stored(source, target)
    if found is None:
        found = base_similarity(source, target)
        text = json.dumps(asdict(found), sort_keys=True)
        put_once(similarity_key(source.digest, target.digest), lambda path: _write(path, text))
    return found


def _stored(source: BaseModel, target: BaseModel) -> BaseSimilarity | None:
    key = similarity_key(source.digest, target.digest)
    store = open_stored()
    return BaseSimilarity(**json.loads(store.get(key))) if store.exists(key) else None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
