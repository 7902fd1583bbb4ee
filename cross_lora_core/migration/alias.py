"""The alias of an adapter on a target, as the serving fleet reads it: a small pointer in the store."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from cross_lora_core.errors import ObjectCorrupted

__all__ = ["Alias", "read_alias"]


@dataclass(frozen=True)
class Alias:
    """What `adapters/{target_base}/{adapter}/latest.json` says.

    Attributes:
        promotion: number of the row in the catalog this pointer follows.
        output: folder or s3:// URL that PEFT and vLLM load.
        sha256: of its `adapter_model.safetensors`.
        promoted_at: ISO 8601, UTC.
        action: `promote` or `rollback`.
    """

    adapter: str
    target_base: str
    output: str
    sha256: str
    verdict: str
    promotion: int
    action: str
    actor: str
    reason: str
    promoted_at: str

    @property
    def lora_name(self) -> str:
        """`{adapter}/{version}`: the name to ask a server for that reads `{base_model_name}/{lora_name}`."""
        return "/".join(self.output.rsplit("/", 2)[-2:])

    def to_bytes(self) -> bytes:
        """The pointer object."""
        return (json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n").encode()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"lora_name": self.lora_name}


def read_alias(data: bytes, where: str) -> Alias:
    """The alias that a pointer object says.

    Raises:
        ObjectCorrupted: it is not one of ours.
    """
    try:
        values = json.loads(data)
        del values["lora_name"]
        return Alias(**values)
    except (ValueError, TypeError, KeyError) as error:
        remedy = "Promote the adapter again: that writes the pointer anew."
        raise ObjectCorrupted("an alias pointer", type(error).__name__, where, remedy) from error
