"""A bad network between us and a real S3 server: every fault ends in success or in an error that says so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from cross_lora_core.errors import ObjectCorrupted, StoreRefused, StoreUnavailable
from cross_lora_core.storage import S3Store, open_folder, open_store
from cross_lora_core.storage import s3 as s3_module
from tests.support.buckets import elsewhere
from tests.support.faulty_proxy import (
    ERROR_500,
    ERROR_503,
    LOSE_ANSWER,
    RESET,
    SPOIL,
    SPOIL_UPLOAD,
    STALL,
    Asked,
    Fault,
    FaultyProxy,
    faulty_proxy,
)
from tests.support.files import copies_in
from tests.support.seaweed import Seaweed
from tests.support.store_contract import a_folder

pytestmark = pytest.mark.services
BUCKET, ATTEMPTS = "faults", 3
DATA = bytes(range(256)) * 8192
ANY = {"500": ERROR_500, "503": ERROR_503, "reset": RESET, "stall": STALL, "lost": LOSE_ANSWER}
BODY = {
    "truncated": Fault(cut=700_000),
    "reset inside": Fault(reset=700_000),
    "stall inside": Fault(stall=700_000),
}


@pytest.fixture(scope="module")
def network(seaweed: Seaweed) -> Iterator[tuple[FaultyProxy, int]]:
    with suppress(ClientError):
        seaweed.client().create_bucket(Bucket=BUCKET)
    with faulty_proxy(seaweed.port) as running:
        yield running


@pytest.fixture
def proxy(network: tuple[FaultyProxy, int]) -> Iterator[FaultyProxy]:
    network[0].clear()
    yield network[0]
    network[0].clear()


@pytest.fixture
def url(
    network: tuple[FaultyProxy, int],
    seaweed: Seaweed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> str:
    """Through the proxy: three attempts, a second without a byte is a failed one."""
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    prefix = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    options = {"endpoint": f"http://127.0.0.1:{network[1]}", "attempts": ATTEMPTS, "timeout": 1}
    return seaweed.url(BUCKET, prefix, cache=tmp_path / "cache", **options)


@pytest.fixture
def store(url: str, proxy: FaultyProxy) -> S3Store:
    opened = open_store(url)
    assert isinstance(opened, S3Store)
    return opened


def uploads(store: S3Store) -> list[str]:
    """Keys of uploads in parts that were begun and not ended."""
    found = store._client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return [one["Key"] for one in found if one["Key"].startswith(store.prefix)]


def kind(method: str) -> Callable[[Asked], bool]:
    return lambda asked: asked.method == method


def asks_for(method: str, query: str) -> Callable[[Asked], bool]:
    return lambda asked: asked.method == method and query in f"{asked.query}&"


Use = Callable[[S3Store], object]
USES: dict[str, tuple[str, Use]] = {
    "put": ("PUT", lambda store: store.put("new", DATA)),
    "stat": ("HEAD", lambda store: store.stat("k")),
    "fetch": ("GET", lambda store: store.get("k") == DATA),
    "range": ("GET", lambda store: store.read_range("k", 10, 900_000) == DATA[10:900_000]),
    "list": ("GET", lambda store: list(store.list()) == ["k"]),
    "delete": ("DELETE", lambda store: store.delete("k") is None),
    "whole file": ("GET", lambda store: open_folder(store.url).read("k") == DATA),
}


@pytest.mark.parametrize(
    ("use", "fault"),
    [
        *((use, fault) for use in USES for fault in ("503", "reset")),
        *(("put", fault) for fault in ("500", "stall", "lost")),
        *((use, "stall") for use in ("fetch", "whole file")),
        ("delete", "lost"),
    ],
)
def test_a_request_that_fails_once_is_sent_again(store, proxy, use, fault):
    store.put("k", DATA)
    method, act = USES[use]
    proxy.script(ANY[fault], when=kind(method))
    assert act(store)
    assert proxy.faults == [ANY[fault]]
    if use == "put":
        assert store.get("new") == DATA


@pytest.mark.parametrize("fault", BODY)
@pytest.mark.parametrize("use", ["fetch", "range", "whole file"])
def test_an_answer_that_breaks_off_is_asked_for_again(store, proxy, use, fault):
    store.put("k", DATA)
    when = lambda asked: asked.method == "GET" and asked.path.endswith("/k")  # noqa: E731
    proxy.script(BODY[fault], when=when)
    assert USES[use][1](store)
    assert proxy.faults == [BODY[fault]]


@pytest.mark.parametrize(
    ("use", "fault"),
    [*((use, "503") for use in USES), ("put", "stall"), ("fetch", "stall"), ("put", "reset")],
)
def test_attempts_are_bounded_and_the_error_is_worth_another_try(store, proxy, use, fault):
    store.put("k", DATA)
    method, act = USES[use]
    proxy.always(ANY[fault], when=kind(method))
    with pytest.raises(StoreUnavailable, match="run again") as caught:
        act(store)
    assert caught.value.retryable
    assert len(proxy.faults) == ATTEMPTS


def test_a_stream_that_keeps_breaking_is_given_up(store, proxy):
    store.put("k", DATA)
    proxy.always(Fault(cut=0), when=kind("GET"))
    with pytest.raises(StoreUnavailable, match="run again"):
        store.read_range("k", 0, 1_000)
    assert len(proxy.faults) == ATTEMPTS


def test_a_stream_goes_on_where_it_broke(store, proxy):
    store.put("k", DATA)
    folder = open_folder(store.url)
    proxy.script(Fault(cut=700_000), when=kind("GET"))
    assert b"".join(folder.pieces("k", 0, len(DATA), size=100_000)) == DATA
    assert [asked.range for asked in proxy.asked] == ["bytes=0-2097151", "bytes=700000-2097151"]


def test_pauses_between_attempts_are_random_and_grow(store, proxy, monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time.sleep", waited.append)
    proxy.always(ERROR_503)
    for _ in range(20):
        with pytest.raises(StoreUnavailable):
            store.stat("k")
    firsts, seconds = waited[::2], waited[1::2]
    assert len(waited) == 20 * (ATTEMPTS - 1)
    assert len({round(one, 6) for one in waited}) > 30, "the same pauses for everybody"
    assert max(firsts) <= 1 < max(seconds) <= 2


def test_spoiled_bytes_are_fetched_again_and_never_kept(store, proxy, tmp_path):
    store.put("k", DATA)
    proxy.script(SPOIL, when=kind("GET"))
    assert store.get("k") == DATA
    store.put("other", DATA[::-1])
    proxy.always(SPOIL, when=kind("GET"))
    with pytest.raises(ObjectCorrupted):
        store.get("other")
    kept = [(tmp_path / "cache" / name).read_bytes() for name in copies_in(tmp_path / "cache")]
    assert kept == [DATA]
    proxy.clear()
    assert store.get("other") == DATA[::-1]


def test_a_spoiled_pointer_is_read_again_or_refused(store, proxy):
    store.put_pointer("latest", b"one")
    proxy.script(SPOIL, when=kind("GET"))
    assert store.read_pointer("latest") == b"one"
    proxy.always(SPOIL, when=kind("GET"))
    with pytest.raises(ObjectCorrupted):
        store.read_pointer("latest")


def test_spoiled_small_files_are_read_again_or_refused(store, proxy):
    store.put("k", b"{}")
    folder = open_folder(store.url)
    proxy.script(SPOIL, when=kind("GET"))
    assert folder.read("k") == b"{}"
    proxy.always(SPOIL, when=kind("GET"))
    with pytest.raises(ObjectCorrupted, match="checksum"):
        folder.read("k")


@pytest.mark.parametrize("size", ["small", "in parts"])
def test_a_spoiled_upload_is_not_stored(store, proxy, monkeypatch, tmp_path, size):
    monkeypatch.setattr(s3_module, "_PART", 5 << 20)
    file = tmp_path / "file"
    file.write_bytes(DATA * (3 if size == "in parts" else 1))
    proxy.always(SPOIL_UPLOAD, when=kind("PUT"))
    with pytest.raises(StoreUnavailable, match="run again"):
        store.put("k", file)
    proxy.clear()
    assert list(store.list()) == []
    assert uploads(store) == []
    store.put("k", file)
    assert elsewhere(store).fetch("k").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("fault", ["503", "reset", "lost"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_an_upload_in_parts_survives_a_fault_at_any_step(store, proxy, monkeypatch, tmp_path, method, fault):
    monkeypatch.setattr(s3_module, "_PART", 5 << 20)
    file = tmp_path / "file"
    file.write_bytes(DATA * 3)
    for key, last in (("first", False), ("last", True)):
        steps = {"PUT": ("partNumber=1&", "partNumber=2&"), "POST": ("uploads", "uploadId=")}[method]
        proxy.script(ANY[fault], when=asks_for(method, steps[last]))
        store.put(key, file)
        assert proxy.faults == [ANY[fault]]
        proxy.clear()
        assert elsewhere(store).fetch(key).read_bytes() == file.read_bytes()


def test_an_upload_in_parts_that_fails_leaves_nothing(store, proxy, monkeypatch, tmp_path):
    monkeypatch.setattr(s3_module, "_PART", 5 << 20)
    file = tmp_path / "file"
    file.write_bytes(DATA * 3)
    proxy.always(ERROR_500, when=kind("PUT"))
    with pytest.raises(StoreUnavailable):
        store.put("k", file)
    proxy.clear()
    assert list(store.list()) == []
    assert uploads(store) == []


def test_a_folder_that_was_not_finished_is_finished_by_the_next_try(store, proxy, tmp_path):
    folder = a_folder(tmp_path, "adapter_config.json", "adapter_model.safetensors", "z")
    proxy.always(ERROR_503, when=lambda asked: asked.method == "PUT" and asked.path.endswith("/z"))
    with pytest.raises(StoreUnavailable):
        store.put_folder("f", folder)
    proxy.clear()
    assert not store.exists("f/adapter_config.json")
    assert len(store.put_folder("f", folder)) == 3
    assert store.get("f/z") == b"z"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=301, code="PermanentRedirect", region="eu-west-1"), "another region"),
        (Fault(status=400, code="AuthorizationHeaderMalformed"), "another region"),
        (Fault(status=400, code="ExpiredToken"), "have expired; renew them|Renew the credentials"),
        (Fault(status=403, code="AccessDenied"), "Grant s3:GetObject"),
        (Fault(status=403, code="RequestTimeTooSkewed"), "clock|Grant"),
        (Fault(status=403, code="InvalidAccessKeyId"), "valid AWS credentials|Grant"),
        (Fault(status=404, code="NoSuchBucket"), "Create the bucket"),
    ],
    ids=lambda value: value.code if isinstance(value, Fault) else "",
)
def test_a_refusal_is_final_says_what_to_do_and_loses_nothing(store, proxy, fault, words):
    store.put("k", b"precious")
    proxy.always(fault)
    for use in (lambda: store.put("new", b"x"), lambda: store.get("k"), lambda: list(store.list())):
        with pytest.raises(StoreRefused, match=words) as caught:
            use()
        assert not caught.value.retryable
    proxy.clear()
    assert store.get("k") == b"precious"
    assert list(store.list()) == ["k"]
