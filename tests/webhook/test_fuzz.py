"""Whatever is sent: an answer, never a 5xx; and nothing starts that nobody with the secret asked for."""

from __future__ import annotations

import json
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.webhook.conftest import PUSHED, SAID, TAGGED

FIXTURE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
WORDS = st.dictionaries(
    st.sampled_from(
        ["x-webhook-secret", "webhook-id", "webhook-timestamp", "webhook-signature", "x-mlflow-signature"]
    ),
    st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=60).map(str.strip),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
    max_leaves=8,
)


def is_refused(answer: Any) -> bool:
    return 400 <= answer.status_code < 500


@settings(max_examples=150, deadline=None, suppress_health_check=FIXTURE)
@given(
    sender=st.sampled_from(["mlflow", "huggingface", "generic", "x"]),
    body=st.binary(max_size=300),
    headers=WORDS,
)
def test_unsigned_noise_is_refused(receiver, sender, body, headers):
    given_headers = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = receiver.client.post(f"/webhooks/{sender}", content=body, headers=given_headers)
    assert is_refused(answer)
    assert receiver.started == []


def mutated(example: dict[str, Any]) -> st.SearchStrategy[Any]:
    """The example with any of its fields, at any depth, something else or not there."""
    fields = {
        name: mutated(value) if isinstance(value, dict) else st.just(value) | JSON
        for name, value in example.items()
    }
    return st.fixed_dictionaries({}, optional=fields) | JSON


@settings(max_examples=150, deadline=None, suppress_health_check=FIXTURE)
@given(data=st.data(), number=st.integers(0))
def test_signed_nonsense_is_an_answer(receiver, data, number):
    sender, example = data.draw(
        st.sampled_from([("mlflow", TAGGED), ("huggingface", PUSHED), ("generic", SAID)])
    )
    body = json.dumps(data.draw(mutated(example))).encode("utf-8", "surrogatepass")
    answer = receiver.signed(sender, body, delivery=f"d{number}")
    assert answer.status_code in (202, 400, 429)


@settings(max_examples=60, deadline=None, suppress_health_check=FIXTURE)
@given(data=st.data())
def test_the_description_is_kept(receiver, data):
    """Requests made from the receiver's own OpenAPI description; answers checked against it."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", receiver.client.app)
    operation = data.draw(st.sampled_from([one.ok() for one in schema.get_all_operations()]))
    answer = data.draw(operation.as_strategy()).call()
    assert answer.status_code < 500
    assert str(answer.status_code) in operation.definition.raw["responses"] or answer.status_code in (
        404,
        405,
    )
    assert receiver.started == []
