"""Deliveries as the three senders make them, as others make them, twice, too late, too large and too many."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from cross_lora_core.errors import CatalogUnavailable, PrefectUnavailable
from cross_lora_core.registry import load_config
from cross_lora_core.settings import load_settings
from flows.sweep_deprecated import finish_deliveries
from flows.webhook.limits import RateLimit
from tasks.runtime import open_catalog
from tests.support.servers import wait_until
from tests.webhook.conftest import PUSHED, SAID, SECRETS, TAGGED

SENDERS = [("mlflow", TAGGED), ("huggingface", PUSHED), ("generic", SAID)]


def settled(receiver, count: int = 1):
    wait_until(
        lambda: sum(state != "received" for state, _ in receiver.deliveries()) >= count,
        None,
        load_settings().home,
        30,
    )
    return receiver.deliveries()


@pytest.mark.parametrize(("sender", "body"), SENDERS)
def test_a_deprecation_deprecates_the_base_and_starts_its_migration(receiver, sender, body):
    answer = receiver.signed(sender, body)
    assert (answer.status_code, answer.json()) == (202, {"state": "received"})
    ((state, summary),) = settled(receiver)
    assert state == "started"
    assert summary
    assert receiver.started == [f"old by webhook {sender}"]
    with open_catalog().begin() as work:
        base = work.base_named("old")
        assert (base.status, work.base(base.successor_id).name) == ("deprecated", "new")
        assert work.deliveries()[0].flow_run == "run-1"


@pytest.mark.parametrize(("sender", "body"), SENDERS)
def test_the_same_delivery_again_starts_nothing(receiver, sender, body):
    receiver.signed(sender, body)
    settled(receiver)
    assert receiver.signed(sender, body).json() == {"state": "duplicate"}
    assert len(receiver.started) == len(receiver.deliveries()) == 1


def test_the_same_delivery_many_times_at_once_is_one_row(receiver):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: receiver.signed("generic", SAID), range(16)))
    assert {one.status_code for one in answers} == {202}
    settled(receiver)
    assert [state for state, _ in receiver.deliveries()] == ["started"]


@pytest.mark.parametrize(("sender", "body"), SENDERS)
def test_another_secret_is_refused_and_nothing_is_kept(receiver, sender, body):
    answer = receiver.signed(sender, body, secret="another")
    assert answer.status_code == 401
    assert not any(secret in answer.text for secret in SECRETS.values())
    assert receiver.deliveries() == []


@pytest.mark.parametrize("sender", ["mlflow", "generic"])
@pytest.mark.parametrize("age", [400, -400])
def test_a_replay_outside_the_window_is_refused(receiver, sender, age):
    assert receiver.signed(sender, SAID, age=age).status_code == 401
    assert receiver.deliveries() == []


def test_no_signature_at_all(receiver):
    for sender, body in SENDERS:
        assert receiver.post(sender, body).status_code == 401


@pytest.mark.parametrize(
    ("sender", "body"),
    [
        ("mlflow", TAGGED | {"entity": "registered_model"}),
        ("mlflow", TAGGED | {"entity": "prompt", "action": "created"}),
        ("huggingface", PUSHED | {"updatedRefs": []}),
        ("generic", SAID | {"type": "base.released"}),
        ("generic", SAID | {"data": {"model": "another"}}),
    ],
)
def test_what_no_rule_is_about_is_kept_and_ignored(receiver, sender, body):
    answer = receiver.signed(sender, body)
    assert (answer.status_code, answer.json()) == (202, {"state": "ignored"})
    assert [state for state, _ in receiver.deliveries()] == ["ignored"]
    assert receiver.started == []


@pytest.mark.parametrize("sender", SECRETS)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"type": 1}'])
def test_what_is_no_event_is_refused_without_repeating_it(receiver, sender, body):
    answer = receiver.signed(sender, body)
    assert answer.status_code == 400
    assert answer.json()["reason"]


def test_too_large_whatever_the_header_says(receiver, monkeypatch):
    large = b"x" * (load_settings().webhook_bytes + 1)

    def chunks():
        yield from (large[at : at + 65536] for at in range(0, len(large), 65536))

    assert receiver.signed("generic", large).status_code == 413
    answer = receiver.client.post("/webhooks/generic", content=chunks())
    assert (answer.status_code, answer.json()) == (413, {"reason": "too large"})


def test_too_many(receiver):
    rate = load_settings().webhook_rate
    codes = [receiver.post("generic", SAID).status_code for _ in range(rate + 5)]
    assert codes[:rate] == [401] * rate
    assert 429 in codes[rate:]
    assert receiver.post("mlflow", TAGGED).status_code == 401, "another sender has its own rate"


def test_the_bucket_fills_again():
    now = [0.0]
    rate = RateLimit(60, clock=lambda: now[0])
    assert [rate.allows("a") for _ in range(61)] == [True] * 60 + [False]
    assert rate.allows("b")
    now[0] = 1.0
    assert [rate.allows("a"), rate.allows("a")] == [True, False]
    now[0] = 1e9
    assert sum(rate.allows("a") for _ in range(100)) == 60


def test_senders_that_are_not_expected(receiver, monkeypatch):
    assert receiver.post("github", SAID).status_code == 404
    assert receiver.client.get("/webhooks/generic").status_code == 405
    assert receiver.client.get("/health").json() == {"status": "ok"}


def test_a_sender_without_a_secret_is_not_there(receiver, home, monkeypatch):
    from fastapi.testclient import TestClient

    from flows.webhook.app import create_app

    monkeypatch.delenv("CROSS_LORA_WEBHOOK_SECRET_MLFLOW")
    with TestClient(create_app(load_settings(), load_config(None))) as client:
        assert client.post("/webhooks/mlflow", content=b"{}").status_code == 404


def test_a_base_that_the_catalog_does_not_know_fails_the_delivery(receiver):
    receiver.signed("generic", SAID | {"data": {"model": "unknown"}})
    ((state, _),) = settled(receiver)
    assert state == "failed"
    with open_catalog().begin() as work:
        assert "absent" in work.deliveries()[0].reason


def test_a_start_that_fails_for_now_is_left_to_the_sweep(receiver, monkeypatch, tmp_path):
    def no_answer(*_args, **_kwargs):
        raise PrefectUnavailable("an answer", "none", "the API", "Try again.")

    with monkeypatch.context() as patched:
        patched.setattr("flows.deliveries.start_source", no_answer)
        receiver.signed("generic", SAID)
        receiver.client.portal.call(lambda: None)
        wait_until(lambda: _deprecated(), None, load_settings().home, 30)
    assert finish_deliveries.fn(load_config(tmp_path / "triggers.yaml")) == {"msg-1": "started"}
    assert [state for state, _ in receiver.deliveries()] == ["started"]


def _deprecated() -> bool:
    with open_catalog().begin() as work:
        return work.base_named("old").status == "deprecated"


def test_a_catalog_that_does_not_answer_asks_the_sender_to_try_again(receiver, monkeypatch):
    def no_answer(*_args):
        raise CatalogUnavailable("an answer", "none", "postgresql://user@db", "Try again.")

    monkeypatch.setattr("flows.webhook.app.keep_delivery", no_answer)
    answer = receiver.signed("generic", SAID)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert "postgresql" not in answer.text


def test_no_secret_is_logged(receiver, caplog):
    caplog.set_level(logging.DEBUG)
    for sender, body in SENDERS:
        receiver.signed(sender, body)
        receiver.signed(sender, body, secret="another")
    settled(receiver, 3)
    assert not any(secret in caplog.text for secret in SECRETS.values())
    assert not any(secret in repr(load_settings()) for secret in SECRETS.values())
