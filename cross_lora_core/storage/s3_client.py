"""The one place where a connection to S3 is set up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import CredentialProvider, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.storage.s3_location import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["connect"]

_CONNECT_SECONDS = 10.0


def connect(options: S3Options) -> S3Client:
    """A client for the bucket's server; nothing is sent yet.

    Credentials come from the environment, a profile or the machine, as boto3 finds them, a session
    token included. Requests are retried by botocore's standard mode: pauses grow from a second to
    twenty and are random, and their number is bounded by `options.attempts`.

    Raises:
        ConfigurationError: the endpoint or the AWS configuration cannot be used.
    """
    try:
        session = botocore.session.Session()  # boto3's default one keeps the first credentials it saw
        if options.role:
            providers: Any = session.get_component("credential_provider")
            providers.insert_before("env", _AssumedRole(options))
        style: Any = {"addressing_style": "path" if options.path_style else "auto"}
        return boto3.session.Session(botocore_session=session).client(
            "s3",
            endpoint_url=options.endpoint,
            region_name=options.region,
            config=_config(options).merge(Config(s3=style)),
        )
    except (ValueError, BotoCoreError) as error:
        remedy = "Correct endpoint= and region= in the s3:// URL, and the AWS_* environment variables."
        raise ConfigurationError(
            "an S3 connection that can be set up", str(error), "an s3:// URL", remedy
        ) from error


def _config(options: S3Options) -> Config:
    return Config(
        retries={"mode": "standard", "total_max_attempts": options.attempts},
        connect_timeout=min(_CONNECT_SECONDS, options.timeout),
        read_timeout=options.timeout,
        max_pool_connections=64,
        tcp_keepalive=True,
    )


class _AssumedRole(CredentialProvider):
    """Credentials of a role, asked of STS when the first request is signed and again before they expire."""

    METHOD = "role-of-the-url"

    def __init__(self, options: S3Options) -> None:
        super().__init__()
        self._options = options

    def load(self) -> DeferredRefreshableCredentials:
        """See botocore's `CredentialProvider`."""
        return DeferredRefreshableCredentials(refresh_using=self._fetch, method=self.METHOD)

    def _fetch(self) -> dict[str, str]:
        options = self._options
        sts: Any = botocore.session.Session().create_client(
            "sts", region_name=options.region, config=_config(options)
        )
        asked = {"ExternalId": options.external_id} if options.external_id else {}
        found = sts.assume_role(RoleArn=options.role, RoleSessionName="cross-lora", **asked)["Credentials"]
        return {
            "access_key": found["AccessKeyId"],
            "secret_key": found["SecretAccessKey"],
            "token": found["SessionToken"],
            "expiry_time": found["Expiration"].isoformat(),
        }
