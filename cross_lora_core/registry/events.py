"""What a registry says happened to a model, whichever registry it is, as facts that rules can be about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from cross_lora_core.errors import EventRefused

__all__ = ["Fact", "ModelEvent", "Sender", "hub_delivery", "read_generic", "read_hub", "read_mlflow"]

Sender = Literal["mlflow", "huggingface", "generic"]
_Body = TypeVar("_Body", bound=BaseModel)


@dataclass(frozen=True)
class Fact:
    """One thing that became true of a model: kind, name and, of tags, a value.

    Attributes:
        kind: `tag` or `alias` (MLflow); `ref`, `card_tag` or `action` (Hub); `type` (generic).
    """

    kind: str
    name: str
    value: str = ""


@dataclass(frozen=True)
class ModelEvent:
    """Facts about a model, or one version of it.

    Attributes:
        model: its name in the registry.
        version: None where the registry has no versions or the event is about all of them.
    """

    sender: Sender
    model: str
    version: str | None
    facts: tuple[Fact, ...]

    @property
    def summary(self) -> str:
        """A line for people: printable, and short whatever was sent."""
        version = f" version {self.version}" if self.version else ""
        facts = ", ".join(
            f"{one.kind} {one.name}" + (f"={one.value}" if one.value else "") for one in self.facts
        )
        text = f"{self.model}{version}: {facts or 'nothing a rule can be about'}"
        return ascii(text[:300])[1:-1]


class _MlflowData(BaseModel):
    name: str = ""
    version: str | None = None
    key: str = ""
    value: str = ""
    alias: str = ""
    tags: dict[str, str] = Field(default_factory=dict)


class _MlflowBody(BaseModel):
    entity: str
    action: str
    data: dict[str, Any]


class _HubEvent(BaseModel):
    action: str
    scope: str


class _HubRepo(BaseModel):
    id: str
    name: str
    type: str
    tags: list[str] | None = None
    head_sha: str | None = Field(None, alias="headSha")


class _HubRef(BaseModel):
    ref: str
    old: str | None = Field(None, alias="oldSha")
    new: str | None = Field(None, alias="newSha")


class _HubBody(BaseModel):
    event: _HubEvent
    repo: _HubRepo
    refs: list[_HubRef] | None = Field(None, alias="updatedRefs")


class _GenericData(BaseModel):
    model: str
    version: str | None = None


class _GenericBody(BaseModel):
    type: str
    data: dict[str, Any]


def read_mlflow(body: bytes) -> ModelEvent:
    """An MLflow webhook's body; events about something else than a model version have no facts.

    Raises:
        EventRefused: it is not one.
    """
    sent = _parsed(_MlflowBody, body)
    known = sent.entity.startswith("model_version")
    data = _validated(_MlflowData, sent.data) if known else _MlflowData(name=str(sent.data.get("name", "")))
    facts: Iterable[Fact] = {
        ("model_version", "created"): [Fact("tag", *pair) for pair in sorted(data.tags.items())],
        ("model_version_tag", "set"): [Fact("tag", data.key, data.value)],
        ("model_version_alias", "created"): [Fact("alias", data.alias)],
    }.get((sent.entity, sent.action), [])
    return ModelEvent("mlflow", data.name, data.version, tuple(facts))


def read_hub(body: bytes) -> ModelEvent:
    """A Hugging Face Hub webhook's body; events about datasets, Spaces and discussions have no facts.

    Raises:
        EventRefused: it is not one.
    """
    sent = _parsed(_HubBody, body)
    facts = [Fact("ref", one.ref) for one in sent.refs or () if one.new]
    facts += [Fact("card_tag", tag) for tag in sent.repo.tags or ()]
    facts += [Fact("action", sent.event.action)] if sent.event.scope == "repo" else []
    about_model = sent.repo.type == "model" and sent.event.scope.startswith("repo")
    return ModelEvent("huggingface", sent.repo.name, None, tuple(facts) if about_model else ())


def hub_delivery(body: bytes) -> str:
    """What makes a Hub delivery unique, which has no identifier: repository, refs and their new commits.

    Raises:
        EventRefused: it is not a Hub webhook's body.
    """
    sent = _parsed(_HubBody, body)
    moves = sorted(f"{one.ref} {one.new}" for one in sent.refs or ())
    same = [sent.repo.id, *(moves or [sent.event.scope, sent.event.action, sent.repo.head_sha or ""])]
    return hashlib.sha256("\n".join(same).encode("utf-8", "backslashreplace")).hexdigest()


def read_generic(body: bytes) -> ModelEvent:
    """`{"type": …, "data": {"model": …, "version": …}}`, as the Standard Webhooks specification has it.

    Raises:
        EventRefused: it is not that.
    """
    sent = _parsed(_GenericBody, body)
    data = _validated(_GenericData, sent.data)
    return ModelEvent("generic", data.model, data.version, (Fact("type", sent.type),))


def _parsed(kind: type[_Body], body: bytes) -> _Body:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error) from None


def _validated(kind: type[_Body], value: dict[str, Any]) -> _Body:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _refused(error, "data") from None


def _refused(error: ValidationError, *where: str) -> EventRefused:
    """Where and what kind of mistake, by our own names of fields; nothing that was sent."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in (*where, *first["loc"]) if isinstance(part, str)) or "the body"
    return EventRefused(
        "JSON as this sender makes it", first["type"], place[:100], "Send the event as documented."
    )
