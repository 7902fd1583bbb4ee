"""Each sender's way to prove that a delivery is its own, and what the delivery then says."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pydantic import SecretStr

from cross_lora_core.registry import (
    GENERIC,
    MLFLOW,
    ModelEvent,
    Sender,
    check_shared_secret,
    hub_delivery,
    read_generic,
    read_hub,
    read_mlflow,
    signing_key,
    verify,
)
from cross_lora_core.settings import Settings

__all__ = ["read_delivery", "secret_of"]

_HUB_HEADER = "x-webhook-secret"


def secret_of(sender: Sender, settings: Settings) -> SecretStr | None:
    """The secret shared with a sender; None if it is not expected to send anything."""
    secret: SecretStr | None = getattr(settings, f"webhook_secret_{sender}")
    return secret if secret is not None and secret.get_secret_value() else None


def read_delivery(
    sender: Sender, headers: Mapping[str, str], body: bytes, secret: SecretStr, settings: Settings
) -> tuple[ModelEvent, str]:
    """The event of a delivery that proved to be the sender's, and what makes the delivery unique.

    Args:
        sender: whose form is expected.
        headers: names in lower case.
        body: exactly as it came.
        secret: shared with the sender.
        settings: for the time window.

    Raises:
        SignatureRefused: it is not the sender's, or too old.
        EventRefused: it is not in the sender's form.
    """
    if sender == "huggingface":
        check_shared_secret(headers, _HUB_HEADER, secret.get_secret_value())
        return read_hub(body), hub_delivery(body)
    names, read = (MLFLOW, read_mlflow) if sender == "mlflow" else (GENERIC, read_generic)
    key = signing_key(secret.get_secret_value())
    delivery = verify(names, headers, body, key, now=time.time(), window=settings.webhook_window)
    return read(body), delivery
