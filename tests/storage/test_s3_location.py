"""What an s3:// URL says, what it is refused for, and that it can be written down again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.storage import S3Location, S3Options

ROLE = "arn:aws:iam::123456789012:role/fleet/reader"
TEXTS = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="@"), min_size=1, max_size=20)


def test_every_option_is_read():
    url = (
        f"s3://bucket/a/b/?endpoint=https://host:1&region=eu-west-1&path_style=yes&role={ROLE}&external_id=x"
        "&sse=aws:kms&kms_key=alias/k&attempts=3&timeout=2.5&cache=/c"
    )
    location = S3Location.parse(url)
    assert (location.bucket, location.prefix, location.place) == ("bucket", "a/b", "s3://bucket/a/b")
    assert location.options == S3Options(
        endpoint="https://host:1",
        region="eu-west-1",
        path_style=True,
        role=ROLE,
        external_id="x",
        sse="aws:kms",
        kms_key="alias/k",
        attempts=3,
        timeout=2.5,
        cache=Path("/c"),
    )
    assert location.below("c").url == location.url.replace("a/b", "a/b/c")


@given(
    endpoint=TEXTS,
    region=TEXTS,
    path_style=st.booleans(),
    external_id=TEXTS,
    attempts=st.integers(1, 20),
    timeout=st.floats(0.1, 3600),
)
def test_whatever_the_options_their_url_means_the_same(**options):
    location = S3Location("bucket", "a/b", S3Options(role=ROLE, **options))
    assert S3Location.parse(location.url) == location


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("attempts=0", "attempts=1 to 20"),
        ("attempts=many", "attempts=1 to 20"),
        ("attempts=1000", "attempts=1 to 20"),
        ("timeout=0", "timeout=seconds"),
        ("timeout=inf", "timeout=seconds"),
        ("timeout=nan", "timeout=seconds"),
        ("sse=rot13", "AES256 or aws:kms"),
        ("kms_key=k", "sse= where kms_key= is given"),
        ("external_id=x", "role= where external_id= is given"),
        ("role=reader", "arn:aws:iam"),
        ("path_style=maybe", "true or false"),
        ("region=", "options with a value"),
        ("secret_access_key=s3cret", "options among"),
        ("endpoint=http://key:s3cret@host", "no credentials"),
    ],
)
def test_refusals(query, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        S3Location.parse(f"s3://bucket/x?{query}", "here")
    assert caught.value.where == "here"
    assert "s3cret" not in str(caught.value)
