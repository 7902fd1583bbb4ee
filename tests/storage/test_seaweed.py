"""The store contract and concurrent writers on SeaweedFS, a real server on loopback."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier

import pytest
from botocore.exceptions import ClientError

from cross_lora_core.errors import ObjectExists, StoreRefused, StoreUnavailable
from cross_lora_core.storage import S3Store, Store, open_store
from cross_lora_core.storage import s3 as s3_module
from tests.support.buckets import elsewhere
from tests.support.seaweed import READER, READER_SECRET, Seaweed
from tests.support.store_contract import StoreContract, a_folder

pytestmark = pytest.mark.services
BUCKET, WRITERS = "races", 16


@pytest.fixture
def url(
    seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> str:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    with suppress(ClientError):  # it is there from the test before
        seaweed.client().create_bucket(Bucket=BUCKET)
    prefix = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    return seaweed.url(BUCKET, prefix, cache=tmp_path / "cache")


class TestOnSeaweed(StoreContract):
    @pytest.fixture
    def store(self, url: str) -> Store:
        return open_store(url)

    def damage(self, store: Store, key: str) -> None:
        assert isinstance(store, S3Store)
        where = {"Bucket": BUCKET, "Key": f"{store.prefix}/{key}"}
        metadata = store._client.head_object(**where)["Metadata"]
        store._client.put_object(**where, Body=b"spoiled!", Metadata=metadata)

    def reopen(self, store: Store) -> Store:
        assert isinstance(store, S3Store)
        return open_store(store.url.replace("cache", "other-cache", 1).replace("other-cache=", "cache=", 1))


def race(url: str, use) -> list[int]:
    """The writers whose `use(store, number)` went through; the others met ObjectExists."""
    start, stores = Barrier(WRITERS), [open_store(url) for _ in range(WRITERS)]

    def one(number: int) -> int | None:
        start.wait(30)
        try:
            use(stores[number], number)
        except ObjectExists:
            return None
        return number

    with ThreadPoolExecutor(WRITERS) as pool:
        return [number for number in pool.map(one, range(WRITERS), timeout=60) if number is not None]


def test_equal_bytes_all_succeed(url):
    assert race(url, lambda store, _number: store.put("k", b"same")) == list(range(WRITERS))
    assert open_store(url).get("k") == b"same"


def test_a_conditional_write_that_lost_meets_the_winner(url, monkeypatch):
    """Every writer looks before any writes: the server alone decides, and what it says is believed."""
    winner = open_store(url)
    assert isinstance(winner, S3Store)
    winner.put("k", b"first")
    loser = open_store(url)
    real, looks = loser.stat, []
    monkeypatch.setattr(loser, "stat", lambda key: looks.append(key) or (real(key) if looks[1:] else None))
    with pytest.raises(ObjectExists, match="never overwritten"):
        loser.put("k", b"second")
    assert winner.get("k") == b"first"


def test_parts_that_lost_are_given_up(url, monkeypatch, tmp_path):
    monkeypatch.setattr(s3_module, "_PART", 5 << 20)
    large = tmp_path / "large"
    large.write_bytes(b"x" * (6 << 20))
    store = open_store(url)
    assert isinstance(store, S3Store)

    def taken(**_kwargs):
        answer = {"Error": {"Code": "PreconditionFailed"}, "ResponseMetadata": {"HTTPStatusCode": 412}}
        store._client.put_object(Bucket=BUCKET, Key=store._full("k"), Body=b"first")
        raise ClientError(answer, "CompleteMultipartUpload")

    monkeypatch.setattr(store._client, "complete_multipart_upload", taken)
    with pytest.raises(ObjectExists):
        store.put("k", large)
    assert not store._client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_equal_folders_all_succeed(url, tmp_path):
    folder = a_folder(tmp_path, "adapter_config.json", "adapter_model.safetensors", "sub/x")
    assert race(url, lambda store, _number: store.put_folder("f", folder)) == list(range(WRITERS))
    assert open_store(url).get("f/sub/x") == b"sub/x"
    assert len(list(open_store(url).list("f/"))) == 3


def test_an_object_spoiled_between_two_fetches_is_found(url):
    """The copy in the cache is verified, and so is a new one."""
    store = open_store(url)
    assert isinstance(store, S3Store)
    store.put("k", b"precious")
    cached = store.fetch("k")
    cached.write_bytes(b"spoiled!")
    assert store.get("k") == b"precious"


def test_more_keys_than_a_page_holds(url):
    store = open_store(url)
    assert isinstance(store, S3Store)
    names = [f"many/{number:04d}" for number in range(1_105)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda key: store._client.put_object(Bucket=BUCKET, Key=store._full(key), Body=b"x"), names
            )
        )
    assert list(store.list("many/")) == names
    assert list(store.list("many/110")) == names[1_100:]


def test_what_the_server_encrypts_reads_as_before(url, monkeypatch, tmp_path):
    monkeypatch.setattr(s3_module, "_PART", 5 << 20)
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * (24 << 10))
    store = open_store(f"{url}&sse=AES256")
    assert isinstance(store, S3Store)
    for key, data in {"small": b"precious", "large": large}.items():
        put = store.put(key, data)
        head = store._client.head_object(Bucket=BUCKET, Key=store._full(key))
        assert head["ServerSideEncryption"] == "AES256"
        assert store.stat(key) == put
    assert store.get("small") == b"precious"
    assert elsewhere(store).fetch("large").read_bytes() == large.read_bytes()
    assert store.read_range("large", 5_300_000, 5_300_300) == large.read_bytes()[5_300_000:5_300_300]


def test_parts_carry_checksums_and_the_server_compares_them(url, monkeypatch, tmp_path):
    monkeypatch.setattr(s3_module, "_PART", 5 << 20)
    large = tmp_path / "large"
    large.write_bytes(b"x" * (11 << 20))
    store = open_store(url)
    assert isinstance(store, S3Store)
    sent = []
    store._client.meta.events.register_first(
        "before-send.s3.UploadPart",
        lambda request, **_: sent.append(request.headers["x-amz-checksum-sha256"]),
    )
    store.put("large", large)
    assert len(sent) == 3
    assert elsewhere(store).fetch("large").read_bytes() == large.read_bytes()
    real = store._client.upload_part
    wrong = base64.b64encode(bytes(32)).decode()
    monkeypatch.setattr(store._client, "upload_part", lambda **kw: real(**kw | {"ChecksumSHA256": wrong}))
    with pytest.raises(StoreUnavailable, match=r"BadDigest|Mismatch"):
        store.put("spoiled", large)
    assert not store.exists("spoiled")


def test_the_server_refuses_and_the_error_says_what_to_do(url, seaweed, monkeypatch, tmp_path):
    open_store(url).put("k", b"x")
    absent = open_store(seaweed.url("absent", cache=tmp_path / "other"))
    for use in (lambda: absent.get("k"), lambda: list(absent.list())):  # a put would make the bucket here
        with pytest.raises(StoreRefused, match="Create the bucket"):
            use()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    reading = open_store(url)
    assert reading.get("k") == b"x"
    for use in (lambda: reading.put("mine", b"x"), lambda: reading.delete("k")):
        with pytest.raises(StoreRefused, match="Grant s3:GetObject, s3:PutObject"):
            use()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreRefused, match=r"valid AWS credentials|Grant"):
        open_store(url).get("k")
    assert not reading.exists("mine")
