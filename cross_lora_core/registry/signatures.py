"""Who sent a webhook: signatures over the raw body, compared in constant time, within a time window."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cross_lora_core.errors import ConfigurationError, SignatureRefused

__all__ = ["GENERIC", "MLFLOW", "SignedHeaders", "check_shared_secret", "sign", "signing_key", "verify"]

_MARK = "whsec_"
_IDENTIFIER = re.compile(r"[\x21-\x7e]{1,200}")
_SECONDS = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True)
class SignedHeaders:
    """Names of the three headers of a signed delivery, in lower case."""

    delivery: str
    timestamp: str
    signature: str


MLFLOW = SignedHeaders("x-mlflow-delivery-id", "x-mlflow-timestamp", "x-mlflow-signature")
GENERIC = SignedHeaders("webhook-id", "webhook-timestamp", "webhook-signature")
"""Those of the Standard Webhooks specification, which MLflow's scheme follows under other names."""


def signing_key(secret: str) -> bytes:
    """A secret as the key of its HMAC: base64 after `whsec_`, else the text itself.

    Raises:
        ConfigurationError: what follows `whsec_` is not base64.
    """
    if not secret.startswith(_MARK):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_MARK), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(
            f"base64 after {_MARK}", "something else", "the webhook secret", "Copy the whole secret."
        ) from None


def sign(key: bytes, delivery: str, timestamp: str, body: bytes) -> str:
    """`v1,` and the base64 HMAC-SHA256 of `{delivery}.{timestamp}.{body}`."""
    content = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def verify(
    names: SignedHeaders, headers: Mapping[str, str], body: bytes, key: bytes, *, now: float, window: float
) -> str:
    """The delivery's identifier, if it was signed with this key not long ago.

    Args:
        names: what this sender calls the headers.
        headers: of the request, names in lower case.
        body: exactly as it came.
        key: shared with the sender.
        now: seconds since the epoch.
        window: how many seconds the timestamp may differ from `now`.

    Raises:
        SignatureRefused: it was not, or a header is missing.
    """
    delivery = _header(headers, names.delivery, _IDENTIFIER)
    timestamp = _header(headers, names.timestamp, _SECONDS)
    given = _given(headers, names.signature)
    expected = sign(key, delivery, timestamp, body).encode()
    if not any([hmac.compare_digest(expected, one) for one in given]):  # noqa: C419  (all are compared)
        raise _refused("a signature of this body", "another one", names.signature)
    if abs(now - int(timestamp)) > window:
        remedy = "Set both clocks; a delivery that waited longer than this has to be sent anew."
        raise SignatureRefused(f"a timestamp within {window:g} s", "another", names.timestamp, remedy)
    return delivery


def check_shared_secret(headers: Mapping[str, str], name: str, secret: str) -> None:
    """Nothing, if the header carries the secret itself, as the Hugging Face Hub sends it.

    Raises:
        SignatureRefused: it does not.
    """
    given = headers.get(name, "").encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(secret.encode()).digest()):
        raise _refused("the shared secret", "another or none", name)


def _header(headers: Mapping[str, str], name: str, form: re.Pattern[str]) -> str:
    value = headers.get(name, "")
    if not form.fullmatch(value):
        raise _refused("a well-formed value", "none" if not value else "another", name)
    return value


def _given(headers: Mapping[str, str], name: str) -> list[bytes]:
    """Several signatures may stand side by side, while the sender changes its secret."""
    given = headers.get(name, "").encode("utf-8", "surrogateescape").split()[:5]
    if not given:
        raise _refused("a signature", "none", name)
    return given


def _refused(expected: str, got: str, name: str) -> SignatureRefused:
    return SignatureRefused(expected, got, f"header {name}", "Sign with the secret that both sides share.")
