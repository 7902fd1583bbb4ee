"""Content-addressed names of everything a migration stores.

A key is decided by inputs alone, so that a task run twice, or by two workers
at once, meets its own result instead of making a second one.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Protocol

from cross_lora_core.migration.similarity import SIMILARITY_VERSION
from cross_lora_core.migration.spec import FactorSpec, ProbeSpec, StreamSpec, TransferSpec, content_digest

__all__ = [
    "BaseIdentity",
    "adapter_prefix",
    "alias_key",
    "alignment_key",
    "factors_key",
    "maps_key",
    "path_segment",
    "probes_key",
    "projection_key",
    "similarity_key",
    "streams_key",
]


PROBES_VERSION = 2
"""Raised whenever the same spec would give other strings."""


STREAMS_VERSION = 1
"""Raised whenever the same spec would give other moments of residual streams."""


class BaseIdentity(Protocol):
    """What of a base decides a key."""

    @property
    def name(self) -> str:
        """Name in the catalog."""

    @property
    def digest(self) -> str:
        """Digest of config and weights."""

    @property
    def tokenizer(self) -> str:
        """Digest of the tokenizer."""


def path_segment(name: str) -> str:
    """A name that may come from anywhere, as one safe path segment."""
    return re.sub(r"[^A-Za-z0-9._-]+", "--", name).strip(".-") or "unnamed"


def factors_key(base_digest: str, spec: FactorSpec, first: int, last: int) -> str:
    """Key of the factors of layers `first`..`last` of one base."""
    return f"factors/{base_digest}/{spec.key}/layers-{first:03d}-{last:03d}.safetensors"


def alignment_key(
    source: BaseIdentity, target: BaseIdentity, spec: TransferSpec, first: int, last: int
) -> str:
    """Key of the alignment of target layers `first`..`last` with the source layers mapped to them."""
    pair = f"{source.digest}-{target.digest}"
    version = _transfer_digest(source, target, spec)[:16]
    return f"alignments/{pair}/{version}/layers-{first:03d}-{last:03d}.safetensors"


def maps_key(source: BaseIdentity, target: BaseIdentity, spec: TransferSpec, first: int, last: int) -> str:
    """Key of the maps between the responses of target layers `first`..`last` and of those mapped to them."""
    version = _transfer_digest(source, target, spec)[:16]
    return f"maps/{source.digest}-{target.digest}/{version}/layers-{first:03d}-{last:03d}.safetensors"


def projection_key(
    source: BaseIdentity,
    target: BaseIdentity,
    adapter_digest: str,
    spec: TransferSpec,
    first: int,
    last: int,
) -> str:
    """Key of one adapter's projected factors for target layers `first`..`last`."""
    plan = _transfer_digest(source, target, spec)[:32]
    kept = "" if spec.kept_dtype == "float32" else f"-{spec.kept_dtype}"
    return f"projections/{plan}/{adapter_digest}/layers-{first:03d}-{last:03d}{kept}.safetensors"


def streams_key(source: BaseIdentity, target: BaseIdentity, spec: StreamSpec, first: int, last: int) -> str:
    """Key of the moments of both residual streams at the ends of target layers `first`..`last`."""
    version = content_digest([source.tokenizer, target.tokenizer, asdict(spec), STREAMS_VERSION])[:16]
    return f"moments/{source.digest}-{target.digest}/{version}/layers-{first:03d}-{last:03d}.safetensors"


def probes_key(source: BaseIdentity, adapter_digest: str, spec: ProbeSpec) -> str:
    """Key of strings that a source base wrote, with an adapter on or, where that is empty, without one."""
    version = content_digest([source.tokenizer, asdict(spec), PROBES_VERSION])[:16]
    return f"probes/{source.digest}/{adapter_digest or 'base'}/{version}.json"


def similarity_key(source_digest: str, target_digest: str) -> str:
    """Key of the measured similarity of two bases."""
    return f"similarities/{source_digest}-{target_digest}/v{SIMILARITY_VERSION}.json"


def adapter_prefix(
    source: BaseIdentity, target: BaseIdentity, adapter_name: str, adapter_digest: str, spec: TransferSpec
) -> str:
    """Folder of a migrated adapter: `adapters/{target_base}/{adapter}/{version}`.

    The version follows from the inputs, so the same migration meets its own
    output. The layout is the one vLLM's S3 resolver reads, `{base_model_name}/{lora_name}`, with the
    organisation of a hub id as a folder of its own and `{adapter}/{version}` as the name of the LoRA.
    """
    version = content_digest([_transfer_digest(source, target, spec), adapter_digest, spec.digest])[:12]
    return f"{_adapter_folder(target.name, adapter_name)}/{version}"


def alias_key(target_name: str, adapter_name: str) -> str:
    """Key of the pointer that says which version of an adapter serves on a target."""
    return f"{_adapter_folder(target_name, adapter_name)}/latest.json"


def _adapter_folder(target_name: str, adapter_name: str) -> str:
    base = "/".join(path_segment(part) for part in target_name.split("/"))
    return f"adapters/{base}/{path_segment(adapter_name)}"


def _transfer_digest(source: BaseIdentity, target: BaseIdentity, spec: TransferSpec) -> str:
    """Everything the projected factors depend on besides the adapter."""
    anchored = spec.needs.alignment and spec.anchor == "tokens"
    read = anchored or spec.needs.probes or spec.needs.maps
    tokenizers = [source.tokenizer, target.tokenizer] if read else []
    return content_digest([source.digest, target.digest, spec.transport_digest, *tokenizers])
