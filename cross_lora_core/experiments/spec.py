"""An experiment file: which adapters are trained on which bases, moved where, by which methods.

name = "controlled"
methods = ["effect", "cross-lora", "copy", "interpolate"]

[[bases]]
name = "first"
location = "$BASES/first"            # relative to the file; environment variables are filled in

[[pairs]]
source = "first"
target = "second"

[[tasks]]
name = "iso-dates"
training = { file = "rows/iso-dates.training.jsonl", limit = 900 }
evaluation = "rows/iso-dates.evaluation.jsonl"

[recipes.strong]                     # a recipe of `cross_lora_core.experiments.recipes`, or one like it
steps = 40
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.experiments.recipes import RecipeEntry
from cross_lora_core.migration import Method, TransferOptions

__all__ = ["BaseEntry", "Experiment", "Pair", "RowsFile", "TaskEntry", "load_experiment"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Rank = Annotated[int, Field(ge=1, le=8192)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseEntry(_Entry):
    """A base model under the name the experiment calls it by."""

    name: Name
    location: str = Field(min_length=1, description="Folder, s3:// URL or hub id")


class Pair(_Entry):
    """Adapters of `source` are moved to `target`; `related` bases descend from one another."""

    source: Name
    target: Name
    related: bool = False


class RowsFile(_Entry):
    """Rows of an evaluation file: `limit` of them after the first `skip`."""

    file: str = Field(min_length=1)
    skip: int = Field(0, ge=0)
    limit: int | None = Field(None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value


class TaskEntry(_Entry):
    """What adapters are trained for.

    Attributes:
        steps: of a recipe, by its name, where this task needs others.
        generate: rows without choices are also written by the model, and exact matches counted.
    """

    name: Name
    training: RowsFile
    evaluation: RowsFile
    steps: dict[Name, Annotated[int, Field(ge=1)]] = {}
    generate: bool = False


class Experiment(_Entry):
    """Everything an experiment file says.

    Attributes:
        folder: that relative paths start from.
        ranks: singular vectors kept per base weight; methods that keep none are run once.
        energy_ranks: at which the energy kept of every base is told; needs no adapters.
        seeds: one adapter is trained per base, task, recipe and seed.
        transfer: how adapters are moved, besides method and rank.
    """

    name: Name
    folder: Path = Path()
    bases: tuple[BaseEntry, ...] = Field(min_length=1)
    pairs: tuple[Pair, ...] = ()
    tasks: tuple[TaskEntry, ...] = ()
    recipes: dict[Name, RecipeEntry] = {}
    methods: tuple[Method, ...] = (Method.CROSS_LORA,)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    ranks: tuple[Rank, ...] = (320,)
    energy_ranks: tuple[Rank, ...] = ()
    transfer: TransferOptions = TransferOptions.model_validate({})
    confidence: float = Field(0.95, gt=0.5, lt=1)

    @field_validator("bases", "tasks")
    @classmethod
    def _check_distinct(cls, value: tuple[BaseEntry | TaskEntry, ...]) -> tuple[Any, ...]:
        _refuse_repeats(one.name for one in value)
        return value

    @field_validator("pairs", "methods", "seeds", "ranks", "energy_ranks")
    @classmethod
    def _check_no_repeats(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        _refuse_repeats(value)
        return value

    @field_validator("transfer")
    @classmethod
    def _check_transfer(cls, value: TransferOptions) -> TransferOptions:
        varied = {"method": "methods", "rank": "ranks", "evaluation": "tasks"}
        for one in varied.keys() & value.model_fields_set:
            raise ValueError(f"{one} in {varied[one]}, not here")
        return value

    @model_validator(mode="after")
    def _check_names(self) -> Experiment:
        _refuse_unknown("base", (x for one in self.pairs for x in (one.source, one.target)), self.base_names)
        _refuse_unknown("recipe", (x for one in self.tasks for x in one.steps), self.recipes)
        for name, entry in self.recipes.items():
            entry.resolve(name)
        return self

    @property
    def base_names(self) -> tuple[str, ...]:
        """In the order of the file."""
        return tuple(one.name for one in self.bases)

    def base(self, name: str) -> BaseEntry:
        """The base of this name."""
        return next(one for one in self.bases if one.name == name)

    def task(self, name: str) -> TaskEntry:
        """The task of this name."""
        return next(one for one in self.tasks if one.name == name)

    def located(self, text: str) -> str:
        """A path or URL of the file as others can use it: variables filled in, absolute.

        Raises:
            ConfigurationError: a variable is not set.
        """
        filled = _VARIABLE.sub(lambda found: _variable(found, text), text)
        if "://" in filled:
            return filled
        path = self.folder / Path(filled).expanduser()
        return str(path.absolute()) if path.exists() or _looks_like_path(filled) else filled


def load_experiment(path: str | Path) -> Experiment:
    """Read an experiment file.

    Raises:
        ConfigurationError: no such file, no TOML, or something in it that cannot be used; says where.
    """
    file = Path(path).expanduser().absolute()
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
        return Experiment.model_validate({"folder": file.parent, **raw})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError("an experiment file in TOML", str(error), str(file), _REMEDY) from error
    except ValidationError as error:
        raise _refused(error, file) from error


_REMEDY = "docs/experiments.md shows one; examples/experiments/ holds some."


def _refused(error: ValidationError, file: Path) -> ConfigurationError:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "the file as a whole"
    message = first["msg"].removeprefix("Value error, ")
    got = "nothing" if first["type"] == "missing" else repr(first.get("input"))[:80]
    return ConfigurationError(message, got, f"{place} of {file}", _REMEDY)


def _refuse_repeats(values: Iterable[Any]) -> None:
    seen: set[Any] = set()
    for one in values:
        if one in seen:
            raise ValueError(f"each once, not {one!s} twice")
        seen.add(one)


def _refuse_unknown(kind: str, used: Iterable[str], known: Iterable[str]) -> None:
    names = list(known)
    for one in used:
        if one not in names:
            raise ValueError(f"a {kind} of the file ({', '.join(names) or 'it has none'}), not {one!r}")


_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")
"""`$NAME`, `${NAME}`, or `${NAME:-what stands for it where it is not set}`."""


def _variable(found: re.Match[str], text: str) -> str:
    name = found[1] or found[3]
    value = os.environ.get(name) or found[2]
    if value is None:
        raise ConfigurationError(
            f"environment variable {name}", "not set", text, f"Set {name}, or write the path into the file."
        )
    return value


def _looks_like_path(text: str) -> bool:
    """A hub id has one slash and no dot at its start; everything else is a path."""
    return text.startswith((".", "/", "~")) or text.count("/") != 1 or text.endswith(".jsonl")
