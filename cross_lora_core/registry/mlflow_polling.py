"""Ask an MLflow server what its webhooks may have failed to tell: tags and aliases of mapped models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from cross_lora_core.errors import ConfigurationError, RegistryUnavailable
from cross_lora_core.registry.events import Fact, ModelEvent

__all__ = ["poll_mlflow"]


def poll_mlflow(tracking_uri: str, models: Iterable[str]) -> list[ModelEvent]:
    """What is true now of every version of the named registered models; unknown models have none.

    Credentials and patience are those of MLflow's own variables (`MLFLOW_TRACKING_TOKEN`,
    `MLFLOW_HTTP_REQUEST_MAX_RETRIES`, …).

    Raises:
        RegistryUnavailable: the server did not answer.
        ConfigurationError: MLflow's client is not installed, or the server does not let us in.
    """
    client = _client(tracking_uri)
    with _translating(tracking_uri):
        return [event for model in sorted(set(models)) for event in _versions(client, model)]


def _client(tracking_uri: str) -> Any:
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        remedy = "Install the extra `mlflow`, or unset MLFLOW_TRACKING_URI."
        raise ConfigurationError("MLflow's client", "not installed", "MLFLOW_TRACKING_URI", remedy) from error
    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def _versions(client: Any, model: str) -> Iterator[ModelEvent]:
    aliases = _aliases(client, model)
    if aliases is None:
        return
    quoted = model.replace("\\", "\\\\").replace('"', '\\"')
    page = client.search_model_versions(f'name="{quoted}"')
    while True:
        for one in page:
            yield _event(one, aliases)
        if not page.token:
            return
        page = client.search_model_versions(f'name="{quoted}"', page_token=page.token)


def _aliases(client: Any, model: str) -> dict[str, str] | None:
    """Alias to version; None if there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        return {name: str(version) for name, version in client.get_registered_model(model).aliases.items()}
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _event(version: Any, aliases: dict[str, str]) -> ModelEvent:
    number = str(version.version)
    facts = [Fact("tag", name, value) for name, value in sorted(version.tags.items())]
    facts += [Fact("alias", name) for name, owner in sorted(aliases.items()) if owner == number]
    return ModelEvent("mlflow", version.name, number, tuple(facts))


@contextmanager
def _translating(tracking_uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    where = tracking_uri.rpartition("@")[2]
    try:
        yield
    except MlflowException as error:
        if error.error_code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
            remedy = "Correct MLFLOW_TRACKING_TOKEN, or user name and password."
            raise ConfigurationError("permission to read models", error.error_code, where, remedy) from None
        remedy = "Check that the server runs; the next sweep asks again."
        raise RegistryUnavailable("an answer of MLflow", error.error_code, where, remedy) from None
