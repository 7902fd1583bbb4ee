"""Who asks: session tokens, assumed roles and credentials that have expired, against a mock of S3 and STS."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, SSOTokenLoadError
from moto.sts.models import STSBackend

from cross_lora_core.errors import StoreRefused
from cross_lora_core.storage import S3Options, S3Store, open_store
from cross_lora_core.storage.s3_client import _AssumedRole
from cross_lora_core.storage.s3_errors import translating
from tests.support.buckets import elsewhere, mocked_buckets

BUCKET = "fleet"
ROLE = "arn:aws:iam::123456789012:role/fleet"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch):
    with mocked_buckets(monkeypatch, BUCKET):
        yield


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What STS was asked for, in order."""
    real, calls = STSBackend.assume_role, []

    def noting(self: STSBackend, *args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(STSBackend, "assume_role", noting)
    return calls


def signed_requests(store: S3Store) -> list[Any]:
    """The headers of each request the store sends from now on."""
    headers: list[Any] = []

    def note(request: Any, **_kwargs: Any) -> None:
        headers.append(request.headers)

    store._client.meta.events.register_first("before-send.s3", note)
    return headers


def test_a_session_token_goes_with_every_request(cloud, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t0ken")
    store = S3Store(BUCKET, options=S3Options(cache=tmp_path))
    sent = signed_requests(store)
    store.put("k", b"x")
    assert sent
    assert {one["X-Amz-Security-Token"] for one in sent} == {b"t0ken"}
    assert b"t0ken" not in pickle.dumps(store)


def test_a_role_is_assumed_once_and_signs_every_request(cloud, asked, tmp_path):
    store = open_store(f"s3://{BUCKET}?role={ROLE}&external_id=of-the-owner&cache={tmp_path}")
    assert asked == [], "opening a store sends nothing"
    sent = signed_requests(store)
    store.put("k", b"x")
    assert store.get("k") == b"x"
    assert [(one["role_arn"], one["external_id"]) for one in asked] == [(ROLE, "of-the-owner")]
    assert all(b"Credential=ASIA" in one["Authorization"] for one in sent)
    assert all(one["X-Amz-Security-Token"] for one in sent)
    again = pickle.loads(pickle.dumps(store))
    assert again.get("k") == b"x"
    assert len(asked) == 2, "a copy in another process assumes the role itself"


def test_credentials_of_a_role_are_renewed_before_they_expire(cloud, asked, monkeypatch, tmp_path):
    real = _AssumedRole._fetch

    def short_lived(self: _AssumedRole) -> dict[str, str]:
        return real(self) | {"expiry_time": (datetime.now(UTC) + timedelta(minutes=1)).isoformat()}

    monkeypatch.setattr(_AssumedRole, "_fetch", short_lived)
    store = open_store(f"s3://{BUCKET}?role={ROLE}&cache={tmp_path}")
    store.exists("k")
    before = len(asked)
    store.exists("k")
    assert len(asked) > before


def test_a_profile_that_assumes_a_role_works_without_options(cloud, asked, monkeypatch, tmp_path: Path):
    config = tmp_path / "config"
    config.write_text(
        "[profile person]\naws_access_key_id = own\naws_secret_access_key = s3cret\n"
        f"[profile fleet]\nrole_arn = {ROLE}\nsource_profile = person\n"
    )
    # keys in the environment would come before the profile
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "fleet")
    store = S3Store(BUCKET, options=S3Options(cache=tmp_path / "cache"))
    sent = signed_requests(store)
    assert not store.exists("k")
    assert [one["role_arn"] for one in asked] == [ROLE]
    assert all(b"Credential=ASIA" in one["Authorization"] for one in sent)


def test_a_role_that_may_not_be_assumed(cloud, monkeypatch, tmp_path):
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(answer, "AssumeRole")

    monkeypatch.setattr(_AssumedRole, "_fetch", refuse)
    store = open_store(f"s3://{BUCKET}?role={ROLE}&cache={tmp_path}")
    with pytest.raises(StoreRefused, match="assume the role"):
        store.exists("k")


def test_no_credentials_at_all(cloud, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for query in ("", f"role={ROLE}&"):
        with pytest.raises(StoreRefused, match="Set valid AWS credentials"):
            open_store(f"s3://{BUCKET}?{query}cache={tmp_path}").exists("k")


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"])
def test_expired_credentials_say_so_and_are_not_tried_again(code):
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    with pytest.raises(StoreRefused, match="have expired; renew them"), translating("s3://b/k"):
        raise ClientError(answer, "GetObject")


def test_an_expired_sign_on_is_a_matter_of_credentials():
    with pytest.raises(StoreRefused, match="Set valid AWS credentials"), translating("s3://b/k"):
        raise SSOTokenLoadError(error_msg="expired")


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("sse=AES256", ("AES256", None)),
        ("sse=aws:kms&kms_key=alias/fleet", ("aws:kms", "alias/fleet")),
    ],
)
@pytest.mark.parametrize("size", [1, 6 << 20])
def test_what_is_put_is_encrypted_as_asked(cloud, monkeypatch, tmp_path, query, kept, size):
    monkeypatch.setattr("cross_lora_core.storage.s3._PART", 5 << 20)
    file = tmp_path / "file"
    file.write_bytes(b"x" * size)
    store = open_store(f"s3://{BUCKET}?{query}&cache={tmp_path / 'cache'}")
    store.put("k", file)
    head = boto3.client("s3").head_object(Bucket=BUCKET, Key="k")
    assert (head["ServerSideEncryption"], head.get("SSEKMSKeyId")) == kept
    assert elsewhere(store).fetch("k").read_bytes() == file.read_bytes()
