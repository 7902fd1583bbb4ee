"""The policies of `infra/iam` allow what the store calls, and no more; enforced by moto's IAM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import settings

from cross_lora_core.errors import StoreRefused
from cross_lora_core.migration import alias_key
from cross_lora_core.storage import S3Options, S3Store
from cross_lora_core.storage import s3 as s3_module
from tests.support.buckets import mocked_buckets
from tests.support.store_contract import a_folder

IAM = Path(__file__).parents[2] / "infra" / "iam"
BUCKET, PREFIX, SOURCES = "fleet", "store", "sources"
ACTION_OF = {
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
}
"""Which permission S3 asks for, by operation (Service Authorization Reference, Amazon S3)."""


def policy(name: str) -> dict[str, Any]:
    text = (IAM / f"{name}.json").read_text()
    for placeholder, value in {
        "STORE_BUCKET": BUCKET,
        "STORE_PREFIX": PREFIX,
        "SOURCES_BUCKET": SOURCES,
    }.items():
        text = text.replace(placeholder, value)
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def allowed(name: str) -> set[str]:
    actions: set[str] = set()
    for statement in policy(name)["Statement"]:
        one = statement["Action"]
        actions |= {one} if isinstance(one, str) else set(one)
    return actions


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with mocked_buckets(monkeypatch, BUCKET, SOURCES, key="root", secret="root"):
        yield monkeypatch


def become(cloud: pytest.MonkeyPatch, name: str) -> None:
    """From here on calls come from a user with this policy alone, and moto asks for permission."""
    cloud.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", float("inf"))
    cloud.setenv("AWS_ACCESS_KEY_ID", "root")
    iam = boto3.session.Session().client("iam")
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy(name)))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    cloud.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    cloud.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    cloud.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)


def opened(tmp_path: Path, bucket: str = BUCKET, prefix: str = PREFIX) -> tuple[S3Store, set[str]]:
    """A store, and the operations it calls from now on."""
    store = S3Store(bucket, prefix, S3Options(cache=tmp_path / "cache"))
    called: set[str] = set()
    store._client.meta.events.register("before-call.s3", lambda model, **_: called.add(model.name))
    return store, called


def work_of_a_worker(store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything tasks do to a store."""
    monkeypatch.setattr(s3_module, "_PART", 5 << 20)
    large = tmp_path / "large"
    large.write_bytes(b"x" * (6 << 20))
    store.put("factors/a", b"bytes")
    store.put("factors/large", large)
    assert store.stat("factors/none") is None
    assert store.get("factors/a") == b"bytes"
    assert store.read_range("factors/a", 1, 3) == b"yt"
    assert list(store.list("factors/")) == ["factors/a", "factors/large"]
    store.put_folder("adapters/t/a/1", a_folder(tmp_path, "adapter_config.json", "m"))
    for data in (b"first", b"second"):
        store.put_pointer(alias_key("org/new", "a"), data)
    assert store.read_pointer(alias_key("org/new", "a")) == b"second"
    interrupt_an_upload(store, large, monkeypatch)


def interrupt_an_upload(store: S3Store, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> Iterator[Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as within:
        within.setattr(store, "_upload_parts", stopped)
        with pytest.raises(KeyboardInterrupt):
            store.put("factors/interrupted", file)


def test_a_worker_needs_every_action_it_is_allowed_and_no_other(cloud, tmp_path) -> None:
    become(cloud, "worker")
    store, called = opened(tmp_path)
    work_of_a_worker(store, tmp_path, cloud)
    assert {ACTION_OF[one] for one in called} == allowed("worker")


def test_a_worker_cannot_delete(cloud, tmp_path) -> None:
    become(cloud, "worker")
    store, _ = opened(tmp_path)
    store.put("k", b"x")
    with pytest.raises(StoreRefused):
        store.delete("k")


def test_a_worker_stays_below_its_prefix(cloud, tmp_path) -> None:
    become(cloud, "worker")
    elsewhere, _ = opened(tmp_path, prefix="other")
    with pytest.raises(StoreRefused):
        elsewhere.put("k", b"x")


def test_a_worker_reads_bases_and_adapters_and_cannot_change_them(cloud, tmp_path) -> None:
    boto3.client("s3").put_object(Bucket=SOURCES, Key="bases/old/config.json", Body=b"{}")
    become(cloud, "worker")
    sources, _ = opened(tmp_path, SOURCES, "")
    assert list(sources.list("bases/")) == ["bases/old/config.json"]
    assert sources.read_range("bases/old/config.json", 0, 2) == b"{}"
    with pytest.raises(StoreRefused):
        sources.put("bases/old/more", b"x")


def test_a_reader_loads_adapters_and_nothing_else(cloud, tmp_path) -> None:
    become(cloud, "worker")
    worker, _ = opened(tmp_path)
    worker.put_folder("adapters/t/a/1", a_folder(tmp_path, "adapter_config.json", "m"))
    worker.put("factors/a", b"bytes")
    become(cloud, "reader")
    reader, called = opened(tmp_path / "reader")
    assert [reader.get(key) for key in reader.list("adapters/")] == [b"adapter_config.json", b"m"]
    assert {ACTION_OF[one] for one in called} == allowed("reader")
    for use in (
        lambda: reader.get("factors/a"),
        lambda: reader.put("adapters/x", b"x"),
        lambda: reader.delete("x"),
    ):
        with pytest.raises(StoreRefused):
            use()


def test_an_operator_removes_a_spoiled_object_and_writes_none(cloud, tmp_path) -> None:
    become(cloud, "worker")
    worker, _ = opened(tmp_path)
    worker.put("factors/a", b"bytes")
    become(cloud, "operator")
    operator, _ = opened(tmp_path / "operator")
    operator.delete("factors/a")
    assert operator.stat("factors/a") is None
    with pytest.raises(StoreRefused):
        operator.put("factors/a", b"x")


def test_only_pointers_may_be_overwritten() -> None:
    """Nothing here enforces a bucket policy: what it exempts is compared with the keys that are written."""
    (deny,) = [one for one in policy("bucket_policy")["Statement"] if one["Sid"] == "DenyOverwriting"]
    exempt = deny["NotResource"].removeprefix(f"arn:aws:s3:::{BUCKET}/")
    for base in ("new", "org/new"):
        assert fnmatchcase(f"{PREFIX}/{alias_key(base, 'tickets')}", exempt)
    for key in ("factors/x/layers-000-001.safetensors", "adapters/new/a/1/adapter_config.json"):
        assert not fnmatchcase(f"{PREFIX}/{key}", exempt)


@pytest.mark.parametrize("name", sorted(path.stem for path in IAM.glob("*.json") if path.stem != "lifecycle"))
def test_no_policy_allows_more_than_it_names(name: str) -> None:
    for statement in policy(name)["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if statement["Effect"] == "Allow":
            assert not [one for one in actions if "*" in one]
            assert statement["Resource"] != "*"
            assert "Principal" not in statement


def test_the_lifecycle_ends_interrupted_uploads_and_nothing_else(cloud) -> None:
    rules = json.loads((IAM / "lifecycle.json").read_text())
    s3 = boto3.client("s3")
    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration=rules)
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert not {"Expiration", "Transitions", "NoncurrentVersionExpiration"} & set(rule)
