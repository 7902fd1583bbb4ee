"""Folders others filled, here and on S3: the same answers, and a word about what changed meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from cross_lora_core.errors import ConfigurationError, StoreRefused, StoreUnavailable
from cross_lora_core.storage import Folder, absolute_location, open_folder, read_file
from cross_lora_core.storage import s3_folder as s3_folder_module
from tests.support.buckets import Requests, mocked_buckets, upload

BUCKET = "sources"
DATA = bytes(range(256)) * 40


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch):
    with mocked_buckets(monkeypatch, BUCKET) as client:
        yield client


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "one").mkdir(parents=True)
    (folder / "two").mkdir()
    (folder / "weights").write_bytes(DATA)
    (folder / "config.json").write_text("{}")
    (folder / "one" / "x").write_text("x")
    (folder / "two" / "y").write_text("y")
    return folder


@pytest.fixture(params=["here", "on S3"])
def folder(request: pytest.FixtureRequest, filled: Path, cloud) -> Folder:
    return open_folder(str(filled) if request.param == "here" else upload(cloud, filled, BUCKET, "a/model"))


def test_a_folder_says_what_is_in_it(folder):
    assert folder.name == "model"
    assert folder.names() == ("config.json", "weights")
    assert [one.name for one in folder.folders()] == ["one", "two"]
    assert folder.folders()[0].read("x") == b"x"
    assert folder.has("weights")
    assert not folder.has("x")
    assert folder.size("weights") == len(DATA)
    assert open_folder(folder.location).names() == folder.names()


def test_a_file_is_read_whole_or_by_range(folder):
    assert folder.read("weights") == read_file(folder.file_location("weights")) == DATA
    assert list(folder.pieces("weights", 10, 35, size=10)) == [DATA[10:20], DATA[20:30], DATA[30:35]]
    assert list(folder.pieces("weights", 10, 10, size=10)) == []
    assert b"".join(folder.pieces("weights", 10_000, 20_000, size=999)) == DATA[10_000:]
    assert b"".join(folder.pieces("weights", 20_000, 20_010, size=5)) == b""


def test_what_is_not_there(folder):
    for use in (
        lambda: folder.read("no"),
        lambda: folder.size("no"),
        lambda: list(folder.pieces("no", 0, 1, size=1)),
    ):
        with pytest.raises(FileNotFoundError):
            use()
    nowhere = open_folder(folder.location.replace("model", "nowhere"))
    assert nowhere.names() == nowhere.folders() == ()


def test_an_identity_follows_the_bytes(folder, filled, cloud):
    before = folder.identity("weights")
    assert open_folder(folder.location).identity("weights") == before
    (filled / "weights").write_bytes(DATA + b"more")
    upload(cloud, filled, BUCKET, "a/model")
    assert open_folder(folder.location).identity("weights") != before


def test_an_object_that_was_replaced_or_deleted_is_not_read(filled, cloud):
    folder = open_folder(upload(cloud, filled, BUCKET, "m"))
    cloud.put_object(Bucket=BUCKET, Key="m/weights", Body=b"of another")
    cloud.delete_object(Bucket=BUCKET, Key="m/config.json")
    for use in (lambda: folder.read("weights"), lambda: list(folder.pieces("weights", 0, 5, size=5))):
        with pytest.raises(OSError, match="replaced since"):
            use()
    with pytest.raises(FileNotFoundError, match="deleted since"):
        folder.read("config.json")


def test_a_range_is_one_request_for_just_its_bytes(filled, cloud):
    folder = open_folder(upload(cloud, filled, BUCKET, "m"))
    asked = Requests(folder._client)
    list(folder.pieces("weights", 100, 5_100, size=1_000))
    assert asked == [("weights", 5_000)]


def test_names_that_mean_something_to_a_disk_are_left_out(cloud):
    for key in ("m/fine", "m/../up", "m/..", "m/.hidden", "m/a b", "m//twice", "m/"):
        cloud.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    folder = open_folder(f"s3://{BUCKET}/m")
    assert folder.names() == ("fine",)
    assert folder.folders() == ()


def test_a_whole_file_that_came_spoiled_is_read_again(filled, cloud, monkeypatch):
    folder = open_folder(upload(cloud, filled, BUCKET, "m"))
    real, answers = s3_folder_module.read_whole, []

    def spoiling(*args, **kwargs):
        data, answer = real(*args, **kwargs)
        answers.append(data)
        return (data[:-1] + bytes([len(answers)]), answer) if len(answers) in spoiled else (data, answer)

    monkeypatch.setattr(s3_folder_module, "read_whole", spoiling)
    spoiled = {1}
    assert folder.read("weights") == DATA
    assert len(answers) == 2
    spoiled = {3, 4}
    with pytest.raises(StoreUnavailable, match="spoiled on the way"):
        folder.read("weights")


def test_an_etag_that_is_no_checksum_does_not_matter(filled, cloud, monkeypatch):
    folder = open_folder(upload(cloud, filled, BUCKET, "m"))
    real = s3_folder_module.read_whole

    def other_etag(*args, **kwargs):
        data, answer = real(*args, **kwargs)
        return data, answer | {"ETag": f'"{"0" * 32}"'}

    monkeypatch.setattr(s3_folder_module, "read_whole", other_etag)
    assert folder.read("weights") == DATA


def test_more_files_than_a_page_lists(cloud):
    for number in range(1_003):
        cloud.put_object(Bucket=BUCKET, Key=f"m/{number:04d}", Body=b"x")
    assert len(open_folder(f"s3://{BUCKET}/m").names()) == 1_003


@pytest.mark.parametrize(
    "location",
    [
        "s3://key:s3cret@bucket/x",
        "s3://bucket/x?endpoint=http://key:s3cret@host",
        "https://key:s3cret@host/x",
        "s3://bucket/x?secret=s3cret",
    ],
)
@pytest.mark.parametrize("use", [open_folder, absolute_location, read_file])
def test_a_location_with_credentials_is_refused_and_not_repeated(location, use):
    with pytest.raises(ConfigurationError) as caught:
        use(location)
    assert "s3cret" not in str(caught.value)


def test_a_missing_bucket_is_said_to_be(cloud):
    with pytest.raises(StoreRefused, match="Create the bucket"):
        open_folder("s3://absent/x")


def test_what_can_be_kept_of_a_location(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute_location("a/b") == str(tmp_path / "a/b")
    assert absolute_location((tmp_path / "c d").as_uri()) == str(tmp_path / "c d")
    assert absolute_location("s3://bucket/x/?region=eu-west-1") == "s3://bucket/x?region=eu-west-1"
