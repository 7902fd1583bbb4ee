from __future__ import annotations

from pathlib import Path

import pytest

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.registry import Deprecation, Fact, ModelEvent, load_config

YAML = """
migration: {rank: 16, method: interpolate}
mlflow:
  - model: llama
    version: 1
    base: old-llama
    successor: new-gemma
    deprecated_by:
      - tag: deprecated
      - {tag: stage, value: Retired}
      - alias: end-of-life
huggingface:
  - model: org/old
    base: old-llama
    deprecated_by: [{ref: refs/tags/deprecated}, {card_tag: deprecated}, {action: delete}]
generic:
  - {model: llama, base: old-llama, successor: new-gemma}
"""
TOML = """
[[mlflow]]
model = "llama"
base = "old-llama"
successor = "new-gemma"
deprecated_by = [{tag = "deprecated", value = "yes"}]
"""
MOVES = Deprecation("old-llama", "new-gemma")


@pytest.fixture
def config(tmp_path: Path):
    return load_config(written(tmp_path, YAML))


def written(folder: Path, text: str, name: str = "triggers.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def mlflow_event(*facts: Fact, version: str = "1", model: str = "llama") -> ModelEvent:
    return ModelEvent("mlflow", model, version, facts)


@pytest.mark.parametrize(
    ("event", "meant"),
    [
        (mlflow_event(Fact("tag", "deprecated", "true")), MOVES),
        (mlflow_event(Fact("tag", "deprecated", "True")), MOVES),
        (mlflow_event(Fact("tag", "deprecated", "false")), None),
        (mlflow_event(Fact("tag", "stage", "retired")), MOVES),
        (mlflow_event(Fact("tag", "x", ""), Fact("alias", "end-of-life")), MOVES),
        (mlflow_event(Fact("alias", "deprecated")), None),
        (mlflow_event(Fact("tag", "deprecated", "true"), version="2"), None),
        (mlflow_event(Fact("tag", "deprecated", "true"), model="other"), None),
        (mlflow_event(), None),
        (ModelEvent("huggingface", "org/old", None, (Fact("ref", "refs/tags/deprecated"),)), Deprecation("old-llama", None)),
        (ModelEvent("huggingface", "org/old", None, (Fact("card_tag", "deprecated"),)), Deprecation("old-llama", None)),
        (ModelEvent("huggingface", "org/old", None, (Fact("action", "delete"),)), Deprecation("old-llama", None)),
        (ModelEvent("huggingface", "org/old", None, (Fact("ref", "refs/heads/main"),)), None),
        (ModelEvent("generic", "llama", "7", (Fact("type", "base.deprecated"),)), MOVES),
        (ModelEvent("generic", "llama", None, (Fact("type", "base.released"),)), None),
        (ModelEvent("generic", "org/old", None, (Fact("type", "base.deprecated"),)), None),
    ],
)  # fmt: skip
def test_what_an_event_means(config, event: ModelEvent, meant: Deprecation | None):
    assert config.deprecation_by(event) == meant


def test_options_of_migrations_nobody_is_there_to_start(config, tmp_path):
    assert (config.migration.rank, config.migration.method) == (16, "interpolate")
    assert (
        load_config(None).migration.rank == load_config(written(tmp_path, "", "e.yaml")).migration.rank == 320
    )


def test_toml_and_values_that_are_not_true(tmp_path):
    config = load_config(written(tmp_path, TOML, "triggers.toml"))
    assert config.deprecation_by(mlflow_event(Fact("tag", "deprecated", "YES"))) == MOVES
    assert config.deprecation_by(mlflow_event(Fact("tag", "deprecated", "true"))) is None


@pytest.mark.parametrize("value", ["true", "1", '"true"'])
def test_yaml_values_without_quotes_are_the_text_they_look_like(tmp_path, value):
    text = f"mlflow: [{{model: m, base: b, deprecated_by: [{{tag: t, value: {value}}}]}}]"
    fact = Fact("tag", "t", value.strip('"'))
    assert load_config(written(tmp_path, text)).deprecation_by(mlflow_event(fact, model="m"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("mlflow: [{model: m, base: b, deprecated_by: [{tagg: t}]}]", "mlflow.0.deprecated_by.0.tagg"),
        ("mlflow: [{model: m, base: b, deprecated_by: [{tag: t, alias: a}]}]", "exactly one of tag, alias"),
        ("mlflow: [{model: m, base: b, deprecated_by: [{value: t}]}]", "exactly one of tag, alias"),
        ("mlflow: [{model: m, base: b, deprecated_by: []}]", "mlflow.0.deprecated_by"),
        ("mlflow: [{model: m, base: b}]", "mlflow.0.deprecated_by"),
        ("mlflow: [{model: m, deprecated_by: [{tag: t}]}]", "mlflow.0.base"),
        ("mlflow: [{model: m, base: b, successor: b, deprecated_by: [{tag: t}]}]", "other than the base itself"),
        ("huggingface: [{model: m, base: b, deprecated_by: [{tag: t}]}]", "deprecated_by.0.tag"),
        ("github: []", "github"),
        ("migration: {rank: 0}", "migration.rank"),
        ("[1, 2]", "the whole file"),
        ("a: b: c", "mapping values"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(tmp_path, text: str, place: str):
    with pytest.raises(ConfigurationError, match=r"triggers\.yaml") as caught:
        load_config(written(tmp_path, text))
    assert place in str(caught.value)


def test_a_file_that_is_not_there_or_no_toml(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigurationError, match=r"\.toml"):
        load_config(written(tmp_path, YAML, "x.toml"))
