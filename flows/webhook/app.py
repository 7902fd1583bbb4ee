"""The receiver's routes: check, keep, answer at once; what follows comes after the answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, SecretStr

from cross_lora_core.errors import CrossLoraError, EventRefused, RetryableError, SignatureRefused
from cross_lora_core.registry import RegistryConfig, Sender
from cross_lora_core.settings import Settings
from flows.webhook.acting import Actor
from flows.webhook.limits import RateLimit, TooLarge, read_whole
from flows.webhook.senders import read_delivery, secret_of
from tasks.receive_delivery import keep_delivery, unfinished_deliveries

__all__ = ["Answer", "create_app"]

_log = logging.getLogger("cross_lora.webhook")


class Answer(BaseModel):
    """What became of a delivery: kept to be acted upon, known already, or about nothing of ours."""

    state: Literal["received", "duplicate", "ignored"]


class Refusal(BaseModel):
    """Why a delivery was not taken; repeats nothing of its content."""

    reason: str


_REFUSALS = {
    400: "not in the sender's form",
    401: "not signed with the secret, or too long ago",
    404: "this sender has no secret here",
    413: "too large",
    429: "too many",
    503: "the catalog does not answer; send it again",
}


class Receiver:
    """Takes deliveries: checks them, keeps them, hands them to the actor.

    Args:
        settings: secrets and limits.
        config: which event deprecates which base.
    """

    def __init__(self, settings: Settings, config: RegistryConfig) -> None:
        self._settings, self._config = settings, config
        self._actor, self._rate = Actor(config), RateLimit(settings.webhook_rate)

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Take up what a receiver before this one left, and leave nothing half done at the end."""
        for delivery in await run_in_threadpool(unfinished_deliveries):
            self._actor.submit(delivery)
        yield
        await run_in_threadpool(self._actor.close)

    async def take(self, sender: Sender, request: Request) -> Answer:
        """Answer one delivery.

        Raises:
            HTTPException: an unexpected sender, too large, or too many.
            EventRefused: not the sender's, or not in its form.
            CatalogUnavailable: it could not be kept.
        """
        secret = self._expected(sender, request)
        try:
            body = await read_whole(request.stream(), self._settings.webhook_bytes)
        except TooLarge:
            raise HTTPException(413, _REFUSALS[413], {"Connection": "close"}) from None
        event, delivery = read_delivery(sender, _headers(request), body, secret, self._settings)
        kept, done = await run_in_threadpool(keep_delivery, event, delivery, self._config)
        if done or kept.state == "ignored":
            return Answer(state="duplicate" if done else "ignored")
        self._actor.submit(kept)
        return Answer(state="received")

    def _expected(self, sender: Sender, request: Request) -> SecretStr:
        secret = secret_of(sender, self._settings)
        if secret is None:
            raise HTTPException(404, _REFUSALS[404])
        if not self._rate.allows(f"{sender} {request.client.host if request.client else ''}"):
            raise HTTPException(429, _REFUSALS[429], {"Retry-After": "60"})
        return secret


def create_app(settings: Settings, config: RegistryConfig) -> FastAPI:
    """The receiver as an ASGI application; its routes are described at `/openapi.json`."""
    receiver = Receiver(settings, config)
    app = FastAPI(title="cross-lora webhooks", docs_url=None, redoc_url=None, lifespan=receiver.lifespan)
    for kind, handler in (
        (CrossLoraError, _refuse),
        (HTTPException, _say),
        (RequestValidationError, _no_sender),
    ):
        app.add_exception_handler(kind, handler)
    app.add_api_route("/health", _health)
    refusals: Any = {code: {"model": Refusal, "description": text} for code, text in _REFUSALS.items()}
    app.add_api_route(
        "/webhooks/{sender}", receiver.take, methods=["POST"], status_code=202, responses=refusals
    )
    return app


async def _health() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


def _headers(request: Request) -> dict[str, str]:
    """Names in lower case; values as UTF-8, which a secret may need, whatever bytes they are."""
    return {
        name.decode("latin-1").lower(): value.decode("utf-8", "surrogateescape")
        for name, value in request.headers.raw
    }


async def _say(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"reason": error.detail}, error.status_code, error.headers)


async def _no_sender(_request: Request, _error: Exception) -> JSONResponse:
    return JSONResponse({"reason": "there is no such sender"}, 404)


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    """Errors raised on purpose, told to the sender as far as they are its own."""
    if isinstance(error, EventRefused):
        code = 401 if isinstance(error, SignatureRefused) else 400
        reason = f"expected {error.expected}, got {error.got} ({error.where})"
        _log.warning("refused: %s", reason)
        return JSONResponse({"reason": reason}, code)
    _log.error("%s", error)
    code = 503 if isinstance(error, RetryableError) else 500
    return JSONResponse(
        {"reason": _REFUSALS.get(code, "see the receiver's log")}, code, {"Retry-After": "60"}
    )
