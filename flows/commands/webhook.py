"""`cross-lora webhook`: the receiver of model registries' webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

import typer

from flows.commands.output import reporting_errors, say

if TYPE_CHECKING:
    from cross_lora_core.settings import Settings

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Receive webhooks of MLflow, the Hugging Face Hub and others.")


def _senders_ready(settings: Settings) -> list[str]:
    """Those whose secret is set and can be used; without any, or without the file, there is nothing to serve.

    Raises:
        ConfigurationError: says what to set.
    """
    from cross_lora_core.errors import ConfigurationError
    from cross_lora_core.registry import Sender, signing_key
    from flows.webhook.senders import secret_of

    secrets = {sender: secret_of(sender, settings) for sender in get_args(Sender)}
    ready = {sender: secret for sender, secret in secrets.items() if secret is not None}
    missing = "CROSS_LORA_WEBHOOK_CONFIG" if settings.webhook_config is None else ""
    missing = missing or ("" if ready else "CROSS_LORA_WEBHOOK_SECRET_MLFLOW, …_HUGGINGFACE or …_GENERIC")
    if missing:
        remedy = "Set it; docs/triggers.md has examples."
        raise ConfigurationError("a configured receiver", f"no {missing}", "the environment", remedy)
    for secret in ready.values():
        signing_key(secret.get_secret_value())
    return list(ready)


@app.command("serve")
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on")] = 8080,
) -> None:
    """Listen for deliveries at /webhooks/mlflow, /webhooks/huggingface and /webhooks/generic.

    Needs CROSS_LORA_WEBHOOK_CONFIG (which event deprecates which base) and the secret of each sender
    (CROSS_LORA_WEBHOOK_SECRET_MLFLOW, …_HUGGINGFACE, …_GENERIC). See docs/triggers.md.
    """
    with reporting_errors(as_json=False):
        import logging

        import uvicorn

        from cross_lora_core.registry import load_config
        from cross_lora_core.settings import load_settings
        from flows.embedded import configure_prefect

        settings = load_settings()
        senders = _senders_ready(settings)
        config = load_config(settings.webhook_config)
        configure_prefect(settings, verbose=False)
        from flows.webhook.app import create_app  # imports Prefect, which reads its settings then
        from tasks.runtime import open_catalog

        open_catalog()
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        say(f"listening on http://{host}:{port}/webhooks/ for {', '.join(senders)}")
        uvicorn.run(create_app(settings, config), host=host, port=port, server_header=False)
