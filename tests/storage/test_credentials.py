"""Whatever a URL is refused for, what is secret in it is not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.storage import open_store


@pytest.mark.parametrize(
    "url",
    [
        "ftp://user:s3cret@host/x",
        "https://user:s3cret@host/bucket?X-Amz-Signature=s3cret",
        "file://user:s3cret@host/x",
        "file:///x?token=s3cret",
        "s3://user:s3cret@bucket/x",
        "s3://bucket/x?endpoint=http://user:s3cret@host",
        "s3://bucket/x?endpoint=user:s3cret@host",
        "s3://bucket/x?secret_key=s3cret",
    ],
)
def test_a_refusal_never_repeats_credentials(url):
    with pytest.raises(ConfigurationError, match="CROSS_LORA_STORE") as caught:
        open_store(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["file://", "file:relative/folder", "file://localhost"])
def test_a_file_url_without_a_whole_path_is_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="three slashes"):
        open_store(url)
    assert not list(Path.cwd().iterdir())


def test_what_follows_a_hash_is_refused_rather_than_dropped():
    with pytest.raises(ConfigurationError, match="s3://bucket/prefix"):
        open_store("s3://bucket/team#a")
