from __future__ import annotations

import pickle

import pytest

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.storage import LocalStore, S3Store, open_store


def test_folders(tmp_path):
    spaced = tmp_path / "a b"
    for url in (spaced.as_uri(), str(spaced)):
        store = open_store(url)
        assert isinstance(store, LocalStore)
        assert store.root == spaced


def test_buckets(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    query = f"?endpoint=http://127.0.0.1:8333&region=eu-west-1&path_style=true&cache={tmp_path}"
    store = open_store("s3://fleet/team/a/" + query)
    assert isinstance(store, S3Store)
    assert (store.bucket, store.prefix) == ("fleet", "team/a")
    assert store._client.meta.endpoint_url == "http://127.0.0.1:8333"
    assert store.folder_url("x/y") == "s3://fleet/team/a/x/y"
    again = open_store(store.url)
    assert isinstance(again, S3Store)
    assert (again.url, again.options, again._cache.folder) == (store.url, store.options, tmp_path)
    assert "s3cret" not in store.url
    assert b"s3cret" not in pickle.dumps(store)


def test_an_endpoint_from_the_environment(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:8333")
    store = open_store("s3://fleet")
    assert isinstance(store, S3Store)
    assert store._client.meta.endpoint_url == "http://127.0.0.1:8333"
    assert store.url == "s3://fleet"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "file:///folder or s3://bucket/prefix"),
        ("s3://", "s3://bucket/prefix"),
        ("s3://key:secret@bucket/x", "no credentials in the URL"),
        ("s3://bucket/x?secret_key=1", "options among"),
        ("s3://bucket/x?endpoint=http://key:secret@host", "no credentials in the URL"),
        ("s3://bucket/x?endpoint=nohost", "endpoint= and region="),
        ("s3://bucket/x?endpoint=", "options with a value"),
        ("s3://bucket/x?path_style=flase", "path_style=true or false"),
        ("file://store/x", "three slashes"),
        ("file:///x?cache=y", "nothing after the folder"),
    ],
)
def test_refusals(url, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        open_store(url)
    assert "secret@" not in str(caught.value)
