from __future__ import annotations

import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from cross_lora_core.errors import ConfigurationError, SignatureRefused
from cross_lora_core.registry import GENERIC, MLFLOW, check_shared_secret, sign, signing_key, verify

NOW = 1_700_000_000
BODY = '{"a": "é"}'.encode()
KEY = b"secret"


def headers(names=GENERIC, *, delivery="msg_1", timestamp=str(NOW), signature=None, body=BODY, key=KEY):
    made = signature if signature is not None else sign(key, delivery, timestamp, body)
    return {names.delivery: delivery, names.timestamp: timestamp, names.signature: made}


def check(given, names=GENERIC, *, body=BODY, key=KEY, now=NOW):
    return verify(names, given, body, key, now=now, window=300)


def test_the_published_example_of_standard_webhooks():
    given = headers(
        delivery="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp="1614265330",
        signature="v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    )
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert check(given, body=body, key=key, now=1614265330) == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_what_mlflow_signs_is_accepted():
    made = _generate_hmac_signature("s3cret", "id-1", str(NOW), BODY.decode())
    assert (
        check(headers(MLFLOW, delivery="id-1", signature=made), MLFLOW, key=signing_key("s3cret")) == "id-1"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"body": BODY + b" "},
        {"key": b"another"},
        {"delivery": "msg_2"},
        {"timestamp": str(NOW + 1)},
        {"signature": ""},
        {"signature": "v1,"},
        {"signature": "v2," + sign(KEY, "msg_1", str(NOW), BODY)[3:]},
        {"signature": sign(KEY, "msg_1", str(NOW), BODY)[3:]},
        {"signature": "é"},
        {"signature": "\udce9"},
    ],
)
def test_anything_else_is_refused(change):
    given = headers()
    made = headers(**change)
    changed = made if "signature" in change else made | {GENERIC.signature: given[GENERIC.signature]}
    if set(change) & {"body", "key"}:
        changed = headers(**change)
    with pytest.raises(SignatureRefused):
        check(changed)


@pytest.mark.parametrize("name", [GENERIC.delivery, GENERIC.timestamp, GENERIC.signature])
def test_a_missing_header_is_named(name):
    with pytest.raises(SignatureRefused, match=name):
        check({key: value for key, value in headers().items() if key != name})


@pytest.mark.parametrize("bad", ["", "a b", "x" * 201, "é", "a\x00"])
def test_an_identifier_is_short_and_printable(bad):
    with pytest.raises(SignatureRefused, match="webhook-id"):
        check(headers(delivery=bad))


@pytest.mark.parametrize("bad", ["", "-1", "1e9", "1" * 13, "١٢٣", " 1"])
def test_a_timestamp_is_whole_seconds(bad):
    with pytest.raises(SignatureRefused, match="timestamp"):
        check(headers(timestamp=bad))


@pytest.mark.parametrize(("seconds", "fine"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_the_time_window(seconds, fine):
    given = headers()
    if fine:
        assert check(given, now=NOW + seconds) == "msg_1"
    else:
        with pytest.raises(SignatureRefused, match="within 300 s"):
            check(given, now=NOW + seconds)


def test_one_of_several_signatures_is_enough_while_a_secret_changes():
    right = sign(KEY, "msg_1", str(NOW), BODY)
    wrong = sign(b"old", "msg_1", str(NOW), BODY)
    assert check(headers(signature=f"{wrong} {right}"))
    with pytest.raises(SignatureRefused):
        check(headers(signature=" ".join([wrong] * 5 + [right])))


def test_the_shared_secret_of_the_hub():
    check_shared_secret({"x-webhook-secret": "sécret"}, "x-webhook-secret", "sécret")
    for wrong in (
        {},
        {"x-webhook-secret": ""},
        {"x-webhook-secret": "secre"},
        {"x-webhook-secret": "\udce9"},
    ):
        with pytest.raises(SignatureRefused, match="x-webhook-secret") as caught:
            check_shared_secret(wrong, "x-webhook-secret", "sécret")
        assert "sécret" not in str(caught.value)


def test_a_secret_that_is_not_base64_after_its_mark():
    with pytest.raises(ConfigurationError) as caught:
        signing_key("whsec_not base64")
    assert "not base64" not in str(caught.value)
