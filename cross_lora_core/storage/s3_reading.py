"""Bytes out of S3: streams that are taken up again where they broke, a bounded number of times."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from botocore.exceptions import (
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["read_pieces", "read_whole"]

_BROKEN = (FlexibleChecksumError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/")
_LONGEST_PAUSE = 20.0


class _RangeIgnored(HTTPClientError):
    fmt = "the server answered another range than the one asked for"


def read_pieces(
    client: S3Client, where: dict[str, Any], start: int, stop: int, *, piece: int, attempts: int
) -> Iterator[bytes]:
    """Bytes `start` to `stop` (exclusive) of an object by one request, unless its answer breaks off.

    A request that gets no answer is repeated by botocore; an answer that stops, stalls or ends early is
    asked for again from the piece it broke in. No checksum covers a range: who needs to know that the
    bytes are right compares them with a digest.

    Args:
        client: with bounded retries.
        where: `Bucket` and `Key`; with `IfMatch` all answers are of one version of the object.
        start: of the first byte.
        stop: beyond the last byte; bytes beyond the object's end are left out.
        piece: every piece but the last has this many bytes.
        attempts: answers that may break off, the last included.

    Raises:
        BotoCoreError: no answer came whole.
        ClientError: the server refused; 412 if the object changed.
    """
    failures = 0
    while start < stop:
        try:
            answer: Any = client.get_object(**where, Range=f"bytes={start}-{stop - 1}")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "InvalidRange":  # wholly beyond the end
                return
            raise
        stop = min(stop, _end_of(answer, start))
        try:
            with closing(answer["Body"]) as body:
                while start < stop:
                    found = body.read(min(piece, stop - start))
                    if len(found) < min(piece, stop - start):
                        raise IncompleteReadError(actual_bytes=len(found), expected_bytes=stop - start)
                    start += len(found)
                    yield found
        except _BROKEN:
            failures += 1
            if failures >= attempts:
                raise
            pause(failures)


def _end_of(answer: Any, start: int) -> int:
    found = _RANGE.match(answer.get("ContentRange", ""))
    if found is None or int(found[1]) != start:
        answer["Body"].close()
        raise _RangeIgnored
    return int(found[2]) + 1


def read_whole(client: S3Client, where: dict[str, Any], *, attempts: int) -> tuple[bytes, dict[str, Any]]:
    """A small object and the answer's fields; botocore compares the bytes with the checksum S3 keeps, if any.

    Raises:
        BotoCoreError: no answer came whole.
        ClientError: the server refused.
    """
    failures = 0
    while True:
        answer: Any = client.get_object(**where)
        try:
            with closing(answer["Body"]) as body:
                return body.read(), answer
        except _BROKEN:
            failures += 1
            if failures >= attempts:
                raise
            pause(failures)


def pause(failures: int) -> None:
    """Wait for a random time that grows with the number of failures, as botocore does between attempts."""
    time.sleep(random.random() * min(2**failures / 2, _LONGEST_PAUSE))  # noqa: S311
