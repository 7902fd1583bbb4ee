from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.webhooks.types import EVENT_TO_PAYLOAD_CLASS

from cross_lora_core.errors import EventRefused
from cross_lora_core.registry import Fact, hub_delivery, read_generic, read_hub, read_mlflow


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def mlflow_body(entity: str, action: str, **data: Any) -> bytes:
    return body({"entity": entity, "action": action, "timestamp": "2026-01-01T00:00:00Z", "data": data})


def hub_body(scope: str = "repo.content", action: str = "update", kind: str = "model", **more: Any) -> bytes:
    """As the Hub documents it, shortened."""
    repo = {
        "type": kind,
        "name": "org/old",
        "id": "621ffdc036468d709f17434d",
        "private": False,
        "url": {"web": "https://huggingface.co/org/old", "api": "https://huggingface.co/api/models/org/old"},
        "headSha": "c379e821c9c95d613899e8c4343e4bfee2b0c600",
        "tags": ["license:mit"],
        "owner": {"id": "628b753283ef59b5be89e937"},
    }
    return body(
        {"event": {"action": action, "scope": scope}, "repo": repo, "webhook": {"id": "6390e855e30d9209411de93b", "version": 3}}
        | more
    )  # fmt: skip


TAGGED = [{"ref": "refs/tags/deprecated", "oldSha": None, "newSha": "5"}]


def test_mlflow_tags_aliases_and_new_versions():
    event = read_mlflow(
        mlflow_body("model_version_tag", "set", name="llama", version="1", key="deprecated", value="true")
    )
    assert (event.model, event.version) == ("llama", "1")
    assert event.facts == (Fact("tag", "deprecated", "true"),)
    assert event.summary == "llama version 1: tag deprecated=true"
    alias = read_mlflow(
        mlflow_body("model_version_alias", "created", name="llama", alias="retired", version="2")
    )
    assert (alias.version, alias.facts) == ("2", (Fact("alias", "retired"),))
    created = read_mlflow(
        mlflow_body("model_version", "created", name="llama", version="3", source="s", run_id=None, tags={"deprecated": "true"}, description=None)
    )  # fmt: skip
    assert created.facts == (Fact("tag", "deprecated", "true"),)


@pytest.mark.parametrize(("entity", "action"), [(e.value, a.value) for e, a in EVENT_TO_PAYLOAD_CLASS])
def test_every_event_that_mlflow_sends_is_read(entity: str, action: str):
    (example,) = [
        one.example() for (e, a), one in EVENT_TO_PAYLOAD_CLASS.items() if (e.value, a.value) == (entity, action)
    ]  # fmt: skip
    event = read_mlflow(mlflow_body(entity, action, **example))
    meant = (entity, action) in {
        ("model_version", "created"),
        ("model_version_tag", "set"),
        ("model_version_alias", "created"),
    }
    assert bool(event.facts) == meant


def test_hub_refs_card_tags_and_actions():
    event = read_hub(hub_body(updatedRefs=TAGGED))
    assert event.model == "org/old"
    assert event.facts == (Fact("ref", "refs/tags/deprecated"), Fact("card_tag", "license:mit"))
    gone = [{"ref": "refs/tags/deprecated", "oldSha": "5", "newSha": None}]
    assert Fact("ref", "refs/tags/deprecated") not in read_hub(hub_body(updatedRefs=gone)).facts
    assert Fact("action", "delete") in read_hub(hub_body("repo", "delete")).facts
    assert Fact("action", "update") not in read_hub(hub_body()).facts


@pytest.mark.parametrize(
    ("scope", "kind"), [("discussion", "model"), ("repo.content", "dataset"), ("repo", "space")]
)
def test_hub_events_about_something_else_say_nothing(scope: str, kind: str):
    assert read_hub(hub_body(scope, kind=kind, updatedRefs=TAGGED)).facts == ()


def test_a_hub_delivery_is_known_by_repository_ref_and_new_commit():
    first = hub_delivery(hub_body(updatedRefs=TAGGED))
    assert first == hub_delivery(hub_body("repo", updatedRefs=TAGGED))
    other = [TAGGED[0] | {"newSha": "6"}]
    branch = [TAGGED[0] | {"ref": "refs/heads/main"}]
    keys = {first, *(hub_delivery(hub_body(updatedRefs=one)) for one in (other, branch))}
    keys |= {hub_delivery(hub_body("repo", "delete")), hub_delivery(hub_body("repo", "move"))}
    assert len(keys) == 5
    assert hub_delivery(hub_body(updatedRefs=TAGGED + branch)) == hub_delivery(
        hub_body(updatedRefs=branch + TAGGED)
    )


def test_generic():
    event = read_generic(body({"type": "base.deprecated", "timestamp": "2026", "data": {"model": "llama"}}))
    assert (event.model, event.version, event.facts) == ("llama", None, (Fact("type", "base.deprecated"),))


@pytest.mark.parametrize("read", [read_mlflow, read_hub, read_generic, hub_delivery])
@pytest.mark.parametrize(
    "bad",
    [b"", b"{", b"null", b"[]", b"{}", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"type": 1, "data": []}', b"1" * 5000],
    ids=lambda one: repr(one[:12]),
)  # fmt: skip
def test_what_cannot_be_read_is_refused_without_repeating_it(read, bad):
    with pytest.raises(EventRefused):
        read(bad)


def test_a_refusal_names_the_field_and_not_its_value():
    sent = body({"type": "x", "data": {"model": ["s3cret"]}})
    with pytest.raises(EventRefused, match=r"data\.model") as caught:
        read_generic(sent)
    assert "s3cret" not in str(caught.value)


@given(st.text(), st.text(), st.text())
def test_a_summary_is_short_and_printable_whatever_was_sent(name: str, key: str, value: str):
    sent = mlflow_body("model_version_tag", "set", name=name, version="1", key=key, value=value)
    try:
        summary = read_mlflow(sent).summary
    except EventRefused:
        return
    assert len(summary) < 3100
    assert summary.isascii()
    assert summary.isprintable()


def test_the_three_senders_are_the_sections_of_the_configuration():
    from cross_lora_core.registry import RegistryConfig, Sender

    assert set(get_args(Sender)) == set(RegistryConfig.model_fields) - {"migration"}
