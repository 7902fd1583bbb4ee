"""The configuration that says which event of which registry deprecates which base, and what follows it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.migration import TransferOptions
from cross_lora_core.registry.events import Fact, ModelEvent

__all__ = ["Deprecation", "GenericModel", "HubModel", "MlflowModel", "RegistryConfig", "load_config"]

_REMEDY = "Correct the file; docs/triggers.md has its reference."


def _as_text(value: Any) -> Any:
    """YAML reads an unquoted `true` or `1` as something else than the text a registry sends."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


_Text = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]


@dataclass(frozen=True)
class Deprecation:
    """A base of the catalog that is deprecated, and its successor if the configuration names one."""

    base: str
    successor: str | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Rule(_Strict):
    """Exactly one of a rule's own keys says what it is about."""

    @model_validator(mode="after")
    def _one_key(self) -> _Rule:
        keys = [name for name in type(self).model_fields if name != "value"]
        if sum(getattr(self, name) is not None for name in keys) != 1:
            raise ValueError(f"exactly one of {', '.join(keys)}")
        return self

    def matches(self, fact: Fact) -> bool:
        """Whether a fact is what this rule is about; values are compared without regard to case."""
        expected = getattr(self, "value", None)
        same = expected is None or fact.kind != "tag" or fact.value.casefold() == expected.casefold()
        return getattr(self, fact.kind, None) == fact.name and same


class MlflowRule(_Rule):
    """A tag of a model version with its value, or an alias."""

    tag: _Text | None = None
    value: _Text = "true"
    alias: _Text | None = None


class HubRule(_Rule):
    """A branch or tag of the repository, a tag of its model card, or `delete` or `move` of the repository."""

    ref: _Text | None = None
    card_tag: _Text | None = None
    action: _Text | None = None


class GenericRule(_Rule):
    """The type of the event."""

    type: _Text | None = None


class _Mapped(_Strict):
    """A model of a registry, and the base of the catalog that it is."""

    base: _Text = Field(description="Name of the base in the catalog")
    successor: _Text | None = Field(
        None, description="Name of the base that its adapters move to; default: the one in the catalog"
    )

    @model_validator(mode="after")
    def _another_successor(self) -> _Mapped:
        if self.successor == self.base:
            raise ValueError("a successor other than the base itself")
        return self


class MlflowModel(_Mapped):
    """A registered model, or one version of it."""

    model: _Text
    version: _Text | None = None
    deprecated_by: list[MlflowRule] = Field(min_length=1)


class HubModel(_Mapped):
    """A model repository of the Hub, `owner/name`."""

    model: _Text
    version: None = None
    deprecated_by: list[HubRule] = Field(min_length=1)


class GenericModel(_Mapped):
    """A model as the sender of generic events calls it."""

    model: _Text
    version: _Text | None = None
    deprecated_by: list[GenericRule] = Field(default=[GenericRule(type="base.deprecated")], min_length=1)


class RegistryConfig(_Strict):
    """Everything that events, polling and the sweep need to know."""

    migration: TransferOptions = Field(default_factory=TransferOptions)
    mlflow: list[MlflowModel] = []
    huggingface: list[HubModel] = []
    generic: list[GenericModel] = []

    def deprecation_by(self, event: ModelEvent) -> Deprecation | None:
        """What an event means for the catalog; None if no rule is about it."""
        models: Sequence[MlflowModel | HubModel | GenericModel] = getattr(self, event.sender)
        for one in models:
            about = one.model == event.model and one.version in (None, event.version)
            if about and any(rule.matches(fact) for rule in one.deprecated_by for fact in event.facts):
                return Deprecation(one.base, one.successor)
        return None


def load_config(path: Path | None) -> RegistryConfig:
    """Read the file, YAML or TOML; without one nothing is mapped and migrations have default options.

    Raises:
        ConfigurationError: it cannot be read, or says something that is not understood; names the place.
    """
    if path is None:
        return RegistryConfig()
    try:
        return RegistryConfig.model_validate(_content(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ConfigurationError(
            first["msg"], repr(first.get("input"))[:80], f"{path}: {place}", _REMEDY
        ) from None


def _content(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text) or {}
    except OSError as error:
        raise ConfigurationError("a readable file", str(error.strerror), str(path), _REMEDY) from error
    except (yaml.YAMLError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigurationError("YAML, or TOML in a .toml file", said, str(path), _REMEDY) from error
