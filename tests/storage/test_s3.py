from __future__ import annotations

from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from cross_lora_core.errors import ObjectExists, StoreRefused, StoreUnavailable
from cross_lora_core.storage import S3Store, Store
from cross_lora_core.storage import s3 as s3_module
from tests.support.store_contract import StoreContract

BUCKET = "fleet"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in {
        "ACCESS_KEY_ID": "k",
        "SECRET_ACCESS_KEY": "s3cret",
        "DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield S3Store(BUCKET, "team/a", cache=tmp_path / "cache")


class TestS3Store(StoreContract):
    def damage(self, store: Store, key: str) -> None:
        head = store._client.head_object(Bucket=BUCKET, Key=f"team/a/{key}")
        store._client.put_object(
            Bucket=BUCKET, Key=f"team/a/{key}", Body=b"spoiled!", Metadata=head["Metadata"]
        )

    def reopen(self, store: Store) -> Store:
        return S3Store(BUCKET, "team/a", cache=store._cache.with_name("other-cache"))


def test_more_than_a_page_of_keys(store):
    for number in range(1005):
        store._client.put_object(Bucket=BUCKET, Key=f"team/a/many/{number:04d}", Body=b"x")
    keys = list(store.list("many/"))
    assert len(keys) == 1005
    assert keys[-1] == "many/1004"


def test_large_files_go_up_in_parts(store, monkeypatch, tmp_path):
    monkeypatch.setattr(s3_module, "_PART", 5 << 20)
    calls = []
    real = store._client.upload_part
    monkeypatch.setattr(
        store._client, "upload_part", lambda **kw: calls.append(kw["PartNumber"]) or real(**kw)
    )
    file = tmp_path / "large"
    file.write_bytes(bytes(range(256)) * (12 << 12))
    put = store.put("large", file)
    assert calls == [1, 2, 3]
    assert store.fetch("large").read_bytes() == file.read_bytes()
    assert store.stat("large") == put


def test_a_failed_upload_in_parts_is_aborted(store, monkeypatch, tmp_path):
    monkeypatch.setattr(s3_module, "_PART", 5 << 20)
    file = tmp_path / "large"
    file.write_bytes(b"x" * (6 << 20))

    def fail(**_kwargs):
        raise ClientError(
            {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "UploadPart"
        )

    monkeypatch.setattr(store._client, "upload_part", fail)
    with pytest.raises(StoreUnavailable):
        store.put("large", file)
    assert not store._client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")
    assert not store.exists("large")


def test_a_writer_that_comes_second_meets_the_first(store, monkeypatch):
    """Both looked before either wrote."""
    store.put("k", b"one")
    real, looks = store.stat, []

    def blind_once(key: str):
        looks.append(key)
        return None if len(looks) == 1 else real(key)

    monkeypatch.setattr(store, "stat", blind_once)
    with pytest.raises(ObjectExists):
        store.put("k", b"two")
    looks.clear()
    assert store.put("k", b"one").size == 3


@pytest.mark.parametrize(
    ("code", "status", "kind", "words"),
    [
        ("NoSuchBucket", 404, StoreRefused, "Create the bucket"),
        ("AccessDenied", 403, StoreRefused, "s3:GetObject"),
        ("ExpiredToken", 400, StoreRefused, "renew them"),
        ("PermanentRedirect", 301, StoreRefused, "another region"),
        ("InternalError", 500, StoreUnavailable, "run again"),
        ("SlowDown", 503, StoreUnavailable, "run again"),
    ],
)
def test_errors_say_what_to_do(store, monkeypatch, code, status, kind, words):
    def fail(**_kwargs):
        raise ClientError(
            {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "HeadObject"
        )

    monkeypatch.setattr(store._client, "head_object", fail)
    with pytest.raises(kind, match=words):
        store.stat("k")


def test_a_server_that_does_not_answer_can_be_tried_again(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = S3Store(BUCKET, endpoint="http://127.0.0.1:9", region="us-east-1", cache=tmp_path)
    with pytest.raises(StoreUnavailable) as caught:
        store.stat("k")
    assert caught.value.retryable
    assert "s3cret" not in str(caught.value)


def test_a_missing_bucket_is_said_to_be(store, tmp_path):
    with pytest.raises(StoreRefused, match="Create the bucket"):
        S3Store("absent", cache=tmp_path).put("k", b"x")


def test_the_cache_is_used_bounded_and_checked(store, monkeypatch):
    downloads = []
    real = store._client.download_fileobj
    monkeypatch.setattr(store._client, "download_fileobj", lambda *a: downloads.append(a[1]) or real(*a))
    store.put("a", b"a" * 10)
    cached = store.fetch("a")
    assert store.fetch("a") == cached
    assert len(downloads) == 1
    cached.write_bytes(b"spoiled")
    assert store.fetch("a").read_bytes() == b"a" * 10
    assert len(downloads) == 2
    store._cache_bytes = 25
    for key in ("b", "c"):
        store.put(key, key.encode() * 10)
        store.fetch(key)
    assert sum(path.stat().st_size for path in store._cache.iterdir()) <= 25
