"""What a person, a schedule or a webhook asks for: one migration request."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cross_lora_core.migration.methods import Method
from cross_lora_core.settings import OutputDtype
from cross_lora_core.storage import check_location

__all__ = ["MigrationRequest", "TransferOptions", "short_name"]


class TransferOptions(BaseModel):
    """How adapters are moved, whichever they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = Field(Method.CROSS_LORA, description="How updates are carried over")
    rank: int = Field(
        320, ge=1, le=8192, description="Singular vectors kept per base weight (the paper: 320)"
    )
    anchor: Literal["tokens", "index"] = Field(
        "tokens",
        description="How singular vectors are paired: by shared tokens, or by index as published",
    )
    output_rank: int | None = Field(
        None, ge=1, le=512, description="Rank of the adapters written; default: the smallest servable one"
    )
    output_dtype: OutputDtype = Field("float16", description="Precision of the adapters written")
    refine: bool = Field(False, description="Allow training-based distillation as the last rung of auto")
    refine_steps: int = Field(150, ge=1, le=100_000, description="Training steps of method refine")
    refine_seconds: float = Field(
        900.0, gt=0, le=7 * 86_400, description="Time after which method refine stops training, in seconds"
    )
    evaluation: str | None = Field(
        None, description="JSON-lines file for adapters that have no evaluation file of their own"
    )


class _Moved(BaseModel):
    source: str = Field(
        description="The deprecated base the adapters were trained on: registered name, folder or hub id"
    )
    targets: list[str] = Field(
        min_length=1, description="The bases to move them to: registered name, folder or hub id each"
    )
    adapters: list[str] = Field(
        default_factory=list,
        description="Adapters to move: registered name or folder each; empty: all registered on the source",
    )


class MigrationRequest(TransferOptions, _Moved):
    """Move adapters of one source base to one or more target bases.

    Bases and adapters are given by their name in the catalog, as a folder (a path
    or an s3:// URL), or (bases only) as a model hub id.

    Raises:
        ConfigurationError: a URL with credentials, or that cannot be used; it is neither kept nor repeated.
    """

    requested_by: str | None = Field(None, description="Who or what asked; kept in the catalog")

    @field_validator("source", "targets", "adapters", "evaluation")
    @classmethod
    def _check_locations(cls, value: str | list[str] | None) -> str | list[str] | None:
        for text in [value] if isinstance(value, str) else value or []:
            check_location(text)
        return value

    @property
    def title(self) -> str:
        """Source, targets and method in a line; of folders and URLs the last part."""
        source, *targets = (short_name(text) for text in (self.source, *self.targets))
        return f"{source} → {', '.join(targets)} ({self.method})"


def short_name(text: str) -> str:
    """Of a folder or URL the last part; a name stays."""
    place = text.partition("?")[0] if "://" in text else text
    return place.rstrip("/").rpartition("/")[2] or text
