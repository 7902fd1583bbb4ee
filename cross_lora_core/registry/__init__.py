"""Model registries that say when a base is deprecated: MLflow, the Hugging Face Hub, whoever signs JSON.

signatures  who sent a delivery          events   what it says, as facts
mapping     what the facts mean for us   mlflow_polling   the same facts, asked for
"""

from cross_lora_core.registry.events import (
    Fact,
    ModelEvent,
    Sender,
    hub_delivery,
    read_generic,
    read_hub,
    read_mlflow,
)
from cross_lora_core.registry.mapping import Deprecation, RegistryConfig, load_config
from cross_lora_core.registry.mlflow_polling import poll_mlflow
from cross_lora_core.registry.signatures import (
    GENERIC,
    MLFLOW,
    SignedHeaders,
    check_shared_secret,
    sign,
    signing_key,
    verify,
)

__all__ = [
    "GENERIC",
    "MLFLOW",
    "Deprecation",
    "Fact",
    "ModelEvent",
    "RegistryConfig",
    "Sender",
    "SignedHeaders",
    "check_shared_secret",
    "hub_delivery",
    "load_config",
    "poll_mlflow",
    "read_generic",
    "read_hub",
    "read_mlflow",
    "sign",
    "signing_key",
    "verify",
]
