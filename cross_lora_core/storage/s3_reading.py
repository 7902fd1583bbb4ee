"""Bytes out of S3: streams that are taken up again where they broke, a bounded number of times."""

from __future__ import annotations

import os
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
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

__all__ = ["download", "read_parts", "read_pieces", "read_whole"]

_BROKEN = (FlexibleChecksumError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/")
_LONGEST_PAUSE = 20.0
_PART, _PIECE = 16 << 20, 4 << 20


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
            _pause(failures)


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
            _pause(failures)


def read_parts(
    client: S3Client, where: dict[str, Any], start: int, stop: int, *, piece: int, attempts: int, streams: int
) -> Iterator[bytes]:
    """As `read_pieces`, of parts of 16 MiB, several at once and yet in order.

    Args:
        client: with bounded retries.
        where: as for `read_pieces`.
        start: of the first byte.
        stop: beyond the last byte.
        piece: as for `read_pieces`.
        attempts: as for `read_pieces`, for each part.
        streams: parts that are on their way or wait to be taken; no more are in memory.

    Raises:
        BotoCoreError: no answer came whole.
        ClientError: the server refused; 412 if the object changed.
    """
    part = max(_PART // piece, 1) * piece

    def fetch(first: int) -> list[bytes]:
        return list(
            read_pieces(client, where, first, min(first + part, stop), piece=piece, attempts=attempts)
        )

    firsts = range(start, stop, part)
    if len(firsts) < 2 or streams == 1:
        yield from read_pieces(client, where, start, stop, piece=piece, attempts=attempts)
        return
    pool = ThreadPoolExecutor(min(streams, len(firsts)))
    try:
        yield from _in_order(pool, fetch, firsts, streams)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, fetch: Callable[[int], list[bytes]], firsts: Iterable[int], ahead: int
) -> Iterator[bytes]:
    waiting: deque[Future[list[bytes]]] = deque()
    for first in firsts:
        waiting.append(pool.submit(fetch, first))
        if len(waiting) == ahead:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def download(
    client: S3Client, where: dict[str, Any], size: int, path: Path, *, attempts: int, streams: int
) -> None:
    """An object's bytes into a file, over several streams at once; no checksum covers them.

    Args:
        client: with bounded retries.
        where: as for `read_pieces`.
        size: of the object, in bytes.
        path: written; of no use if this raises.
        attempts: as for `read_pieces`, for each part of 16 MiB.
        streams: parts that come at once.

    Raises:
        OSError: the file cannot be written.
        BotoCoreError: no answer came whole.
        ClientError: the server refused.
    """
    with path.open("wb") as file:

        def fetch(start: int) -> None:
            stop = min(start + _PART, size)
            for piece in read_pieces(client, where, start, stop, piece=_PIECE, attempts=attempts):
                os.pwrite(file.fileno(), piece, start)
                start += len(piece)

        with ThreadPoolExecutor(streams) as pool:
            for _ in pool.map(fetch, range(0, size, _PART)):  # the first that raises ends those to come
                pass


def _pause(failures: int) -> None:
    """Wait for a random time that grows with the number of failures, as botocore does between attempts."""
    time.sleep(random.random() * min(2**failures / 2, _LONGEST_PAUSE))  # noqa: S311
