"""A bad network on purpose: an HTTP proxy in front of a real S3 server, with scripted faults."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Asked:
    """One request as it came, before any fault."""

    method: str
    path: str
    query: str
    range: str


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request; one kind at a time.

    `cut`, `reset` and `stall` count bytes of the answer's body that come before; -1 is before all of the answer.
    """

    status: int = 0
    code: str = ""
    region: str = ""
    reset: int | None = None
    cut: int | None = None
    stall: int | None = None
    spoil_answer: bool = False
    spoil_upload: bool = False
    lose_answer: bool = False


ERROR_500, ERROR_503 = Fault(status=500, code="InternalError"), Fault(status=503, code="SlowDown")
RESET, LOSE_ANSWER = Fault(reset=-1), Fault(lose_answer=True)
STALL = Fault(stall=-1)
SPOIL, SPOIL_UPLOAD = Fault(spoil_answer=True), Fault(spoil_upload=True)


class FaultyProxy:
    """Faults by request; requests are noted in `asked`, those that met a fault also in `faults`."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.choose: Callable[[Asked], Fault | None] = lambda _asked: None
        self.released = threading.Event()
        self._lock = threading.Lock()

    def script(self, *faults: Fault, when: Callable[[Asked], bool] = lambda _asked: True) -> None:
        """The next requests that fit meet these faults, in order; those after them meet none."""
        self.clear()
        left = list(faults)
        self.choose = lambda asked: left.pop(0) if left and when(asked) else None

    def always(self, fault: Fault, when: Callable[[Asked], bool] = lambda _asked: True) -> None:
        """Every request that fits meets this fault."""
        self.clear()
        self.choose = lambda asked: fault if when(asked) else None

    def at_random(self, faults: tuple[Fault, ...], share: float, seed: int) -> None:
        """A share of the requests meets one of the faults, never two requests in a row for one path.

        Lists are not spoiled: they have no checksum but TLS's, and their bytes are not what is moved.
        """
        self.clear()
        generator, met = random.Random(seed), {}

        def choose(asked: Asked) -> Fault | None:
            again, met[asked.path] = met.get(asked.path, False), False
            if again or generator.random() >= share:
                return None
            met[asked.path] = True
            fault = generator.choice(faults)
            listing = asked.path.count("/") < 2
            return ERROR_503 if fault.spoil_answer and (listing or asked.method != "GET") else fault

        self.choose = choose

    def clear(self) -> None:
        """No faults from now on, and nothing noted yet."""
        self.choose = lambda _asked: None
        self.asked, self.faults = [], []

    def note(self, asked: Asked) -> Fault:
        with self._lock:
            fault = self.choose(asked)
            self.asked.append(asked)
            if fault is not None:
                self.faults.append(fault)
        return fault or Fault()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass_on(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        fault = proxy.note(Asked(self.command, path, query, self.headers.get("Range", "")))
        if fault.reset == -1:
            self._reset()
        elif fault.stall == -1:
            self._stall()
        elif fault.status:
            self._refuse(fault)
        else:
            answer, content = self._forward(_spoiled(body) if fault.spoil_upload else body)
            self._answer(answer, content, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.proxy.upstream, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer, content

    def _answer(self, answer: http.client.HTTPResponse, content: bytes, fault: Fault) -> None:
        if fault.lose_answer:
            self._reset()
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "date", "server", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self._send(_spoiled(content) if fault.spoil_answer else content, fault)

    def _send(self, content: bytes, fault: Fault) -> None:
        if fault.cut is not None:
            self.wfile.write(content[: fault.cut])
            self.close_connection = True
        elif fault.reset is not None:
            self.wfile.write(content[: fault.reset])
            self._reset()
        elif fault.stall is not None:
            self.wfile.write(content[: fault.stall])
            self._stall()
        else:
            self.wfile.write(content)

    def _refuse(self, fault: Fault) -> None:
        text = f"<Error><Code>{fault.code}</Code><Message>on purpose</Message></Error>".encode()
        self.send_response(fault.status)
        self.send_header("Content-Type", "application/xml")
        if fault.region:
            self.send_header("x-amz-bucket-region", fault.region)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _stall(self) -> None:
        self.wfile.flush()
        self.server.proxy.released.wait(30)
        self.close_connection = True

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: FaultyProxy

    def handle_error(self, *_args: object) -> None:
        """A client that hung up is what is wanted here."""


def _spoiled(content: bytes) -> bytes:
    """One bit in the middle is another."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if content else content


@contextmanager
def faulty_proxy(upstream: int) -> Iterator[tuple[FaultyProxy, int]]:
    """A proxy in front of a port of this machine, and its own port."""
    proxy = FaultyProxy(upstream)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy = proxy
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy, server.server_address[1]
    finally:
        proxy.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
