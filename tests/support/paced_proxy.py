"""A proxy on loopback, in a process of its own, that lets so many bytes a second through each connection.

A far S3 does that: one connection is slow, and many are fast together.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.servers import answers, free_port, wait_until

_STEP = 0.01


@contextmanager
def paced_proxy(to_port: int, bytes_per_second: int) -> Iterator[int]:
    """The proxy's port; both ways of a connection are paced, each by itself."""
    port = free_port()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(port, to_port, bytes_per_second), daemon=True)
    process.start()
    try:
        wait_until(lambda: answers(port), None, Path())
        yield port
    finally:
        process.kill()
        process.join()


def _serve(port: int, to_port: int, rate: int) -> None:
    asyncio.run(_listen(port, to_port, rate))


async def _listen(port: int, to_port: int, rate: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", to_port)
        await asyncio.gather(_pump(reader, back, rate), _pump(there, writer, rate))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int) -> None:
    """Pass on what comes, no sooner than the rate allows."""
    clock = asyncio.get_running_loop().time
    free = clock()
    with suppress(ConnectionError):
        while data := await reader.read(max(1, int(rate * _STEP))):
            free = max(free, clock()) + len(data) / rate
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(free - clock())
    writer.close()
