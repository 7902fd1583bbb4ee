from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from cross_lora_core.migration.tensor_file import write_all, write_tensors


def read(path):
    with safe_open(path, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118


@pytest.fixture
def written():
    return {
        "a": torch.randn(3, 5),
        "transposed": torch.randn(4, 2).T,
        "half": torch.randn(7).to(torch.bfloat16),
        "double": torch.randn(2, 2, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(2.5),
    }


def test_tensors_come_back_with_what_is_told_of_them(tmp_path, written):
    told = {}

    def tensors():
        for name, tensor in written.items():
            told[name] = str(list(tensor.shape))
            yield name, tensor

    write_tensors(tmp_path / "file", tensors(), lambda: told)
    found, metadata = read(tmp_path / "file")
    assert metadata == {name: str(list(tensor.shape)) for name, tensor in written.items()}
    assert found.keys() == written.keys()
    for name, tensor in written.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_tensors_that_are_all_there_make_the_same_file(tmp_path, written):
    write_tensors(tmp_path / "one by one", written.items(), lambda: {"told": "é"})
    write_all(tmp_path / "all", written, {"told": "é"})
    assert (tmp_path / "all").read_bytes() == (tmp_path / "one by one").read_bytes()


def test_one_tensor_in_two_places_is_written_twice(tmp_path):
    shared = torch.randn(3, 3)
    write_tensors(tmp_path / "file", [("first", shared), ("second", shared)], dict)
    found, _ = read(tmp_path / "file")
    assert torch.equal(found["first"], found["second"])


def test_what_breaks_on_the_way_leaves_nothing(tmp_path):
    def tensors():
        yield "a", torch.randn(3)
        raise RuntimeError("the second did not come")

    with pytest.raises(RuntimeError, match="did not come"):
        write_tensors(tmp_path / "file", tensors(), dict)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got a again"):
        write_tensors(tmp_path / "file", [("a", torch.zeros(1)), ("a", torch.zeros(1))], dict)
    assert list(tmp_path.iterdir()) == []
