"""boto3's errors as ours: not there, taken, refused for good, or worth another try."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)

from cross_lora_core.errors import CrossLoraError, ObjectCorrupted, StoreRefused, StoreUnavailable
from cross_lora_core.storage.base import missing

__all__ = ["AlreadyThere", "translating"]

_CREDENTIALS = "Set valid AWS credentials in the environment."
_EXPIRED = "The credentials have expired; renew them and run the same command again."
_PERMISSION = "Grant s3:GetObject, s3:PutObject, s3:ListBucket and s3:DeleteObject on the bucket."
_REGION = "The bucket is in another region; set region= in the s3:// URL, or AWS_DEFAULT_REGION."
_ROLE = "Let this identity assume the role, or correct role= and external_id= in the s3:// URL."
_REMEDIES = {
    "NoSuchBucket": "Create the bucket, or correct the s3:// URL (CROSS_LORA_STORE, or a location).",
    "AccessDenied": _PERMISSION,
    "403": _PERMISSION,
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "InvalidToken": _CREDENTIALS,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": "Set this machine's clock.",
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "KMS.NotFoundException": "Correct kms_key= in the s3:// URL.",
    "KMS.DisabledException": "Enable the key that kms_key= names, or the bucket's.",
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
        ObjectCorrupted: bytes came that do not match the checksum the server sent with them.
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
        SSOError,
        TokenRetrievalError,
        ParamValidationError,
    ) as error:
        remedy = "Correct the s3:// URL." if isinstance(error, ParamValidationError) else _CREDENTIALS
        raise StoreRefused("a request that can be sent", str(error), where, remedy) from error
    except FlexibleChecksumError as error:
        remedy = "Run the same command again; if it stays so, put the object anew."
        raise ObjectCorrupted("bytes that match the server's checksum", str(error), where, remedy) from error
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
    remedy = _REMEDIES.get(code) or _REMEDIES.get(str(status), "Check the s3:// URL.")
    if error.operation_name == "AssumeRole" and remedy == _PERMISSION:
        remedy = _ROLE
    return StoreRefused("a store that accepts the request", code or str(status), where, remedy)
