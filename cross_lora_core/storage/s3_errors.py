"""boto3's errors as ours: not there, taken, refused for good, or worth another try."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from cross_lora_core.errors import CrossLoraError, StoreRefused, StoreUnavailable
from cross_lora_core.storage.base import missing

__all__ = ["AlreadyThere", "translating"]

_CREDENTIALS = "Set valid AWS credentials in the environment."
_PERMISSION = "Grant s3:GetObject, s3:PutObject, s3:ListBucket and s3:DeleteObject on the bucket."
_REGION = "The bucket is in another region; set region= in CROSS_LORA_STORE or AWS_DEFAULT_REGION."
_REMEDIES = {
    "NoSuchBucket": "Create the bucket, or correct CROSS_LORA_STORE.",
    "AccessDenied": _PERMISSION,
    "403": _PERMISSION,
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "InvalidToken": _CREDENTIALS,
    "ExpiredToken": "The credentials have expired; renew them and run the same command again.",
    "RequestTimeTooSkewed": "Set this machine's clock.",
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "400": "Renew the credentials if they expired; set region= if the bucket is in another region.",
}
_BUSY = {
    "SlowDown",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "BadDigest",  # spoiled on the way; the next attempt is sent anew
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
}
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload"}


class AlreadyThere(Exception):
    """The key was taken between our look and our write, perhaps by our own first attempt."""


@contextmanager
def translating(where: str) -> Iterator[None]:
    """Within the block, boto3's errors become ours.

    Raises:
        ObjectNotFound: there is no such object.
        StoreRefused: no bucket, no permission, wrong region, no credentials.
        StoreUnavailable: no answer, or a server error.
        AlreadyThere: a conditional write found the key taken.
    """
    try:
        yield
    except ClientError as error:
        raise _answered(error, where) from error
    except (
        NoCredentialsError,
        PartialCredentialsError,
        CredentialRetrievalError,
        ParamValidationError,
    ) as error:
        remedy = "Correct CROSS_LORA_STORE." if isinstance(error, ParamValidationError) else _CREDENTIALS
        raise StoreRefused("a request that can be sent", str(error), where, remedy) from error
    except (BotoCoreError, Boto3Error) as error:
        remedy = "Check the network and the endpoint; the same command can be run again."
        raise StoreUnavailable("an answer", str(error), where, remedy) from error


def _answered(error: ClientError, where: str) -> CrossLoraError | AlreadyThere:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _TAKEN or status == 412:
        return AlreadyThere(code)
    if code in ("NoSuchKey", "404", "NotFound"):
        return missing(where)
    if status >= 500 or status in (409, 429) or code in _BUSY:
        remedy = "The store is busy or down; the same command can be run again."
        return StoreUnavailable("an answer", code or str(status), where, remedy)
    remedy = _REMEDIES.get(code) or _REMEDIES.get(str(status), "Check CROSS_LORA_STORE.")
    return StoreRefused("a store that accepts the request", code or str(status), where, remedy)
