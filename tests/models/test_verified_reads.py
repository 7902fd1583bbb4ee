"""Once the digest is known, no read returns bytes that the digest was not made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cross_lora_core.errors import BaseModelError
from cross_lora_core.models import BaseModel, Role, open_base
from cross_lora_core.models import checkpoint as checkpoint_module
from cross_lora_core.storage import LocalFolder
from tests.models.conftest import PicoFactory

WEIGHTS = "model.safetensors"


class Unsteady(LocalFolder):
    """A folder whose answers are spoiled at some of the times a position is read."""

    spoiled_times = 0
    gap = 64

    def pieces(self, name: str, start: int, stop: int, *, size: int) -> Iterator[bytes]:
        for piece in super().pieces(name, start, stop, size=size):
            if Unsteady.spoiled_times > 0:
                Unsteady.spoiled_times -= 1
                yield bytes([piece[0] ^ 1]) + piece[1:]
            else:
                yield piece


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks even in pico tensors."""
    monkeypatch.setattr(checkpoint_module, "BLOCK", 1024)


def opened(folder: Path, tmp_path: Path) -> BaseModel:
    base = BaseModel(Unsteady(folder), name="unsteady", cache_folder=tmp_path / "cache")
    assert len(base.digest) == 64
    return base


def reads(base: BaseModel) -> list[torch.Tensor]:
    found = [base.read_weight(1, role) for role in base.roles]
    found += [
        base.read_embedding([0, 7, 9, 250, 3]),
        *(one for one in base.read_gains(0, Role.q) if one is not None),
    ]
    return found


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "gpt_neox"])
def test_reads_by_block_are_those_without(pico: PicoFactory, tmp_path: Path, family: str) -> None:
    verified, plain = opened(pico(family), tmp_path), open_base(pico(family), cache_folder=tmp_path / "c")
    for ours, theirs in zip(reads(verified), reads(plain), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_a_block_spoiled_on_the_way_is_read_again(pico: PicoFactory, tmp_path: Path, family: str) -> None:
    base = opened(pico(family), tmp_path)
    right = reads(base)
    for read in (lambda: base.read_weight(1, Role.v), lambda: base.read_embedding([5])):
        expected = read()
        Unsteady.spoiled_times = 1
        assert torch.equal(read(), expected)
        assert Unsteady.spoiled_times == 0
    assert all(torch.equal(*pair) for pair in zip(reads(base), right, strict=True))


def test_bytes_that_stay_wrong_are_never_returned(pico: PicoFactory, tmp_path: Path) -> None:
    base = opened(pico("llama"), tmp_path)
    Unsteady.spoiled_times = 2
    with pytest.raises(BaseModelError, match="that the base's digest was made of"):
        base.read_weight(1, Role.v)
    Unsteady.spoiled_times = 0


def test_a_bit_that_flips_on_the_disk_is_found(own_pico: PicoFactory, tmp_path: Path) -> None:
    folder = own_pico("llama")
    base = opened(folder, tmp_path)
    tensor = base._checkpoint.find(base.linear(1, Role.v).tensor)
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[tensor.stop - 1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    base.read_weight(0, Role.v)
    with pytest.raises(BaseModelError, match=tensor.name):
        base.read_weight(1, Role.v)


def test_slices_read_little_more_than_they_return(pico: PicoFactory, tmp_path: Path) -> None:
    base = opened(pico("phi3", width=64), tmp_path)
    asked: list[int] = []

    class Counting(LocalFolder):
        def pieces(self, name: str, start: int, stop: int, *, size: int) -> Iterator[bytes]:
            asked.append(stop - start)
            return super().pieces(name, start, stop, size=size)

    object.__setattr__(base._checkpoint, "folder", Counting(pico("phi3", width=64)))
    weight = base.read_weight(0, Role.up)
    assert weight.nbytes <= sum(asked) < weight.nbytes + 2 * 1024
