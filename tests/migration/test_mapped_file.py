"""What is mapped of a file is what safetensors reads, and is given back tensor by tensor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cross_lora_core.migration.mapped_file import MappedFile
from cross_lora_core.migration.tensor_file import write_all

MEGABYTES = 16


@pytest.fixture
def file(tmp_path: Path) -> Path:
    drawn = torch.Generator().manual_seed(0)
    tensors = {
        f"{number}.{dtype}": torch.randn(*shape, generator=drawn).to(getattr(torch, dtype))
        for number, shape in enumerate(((5, 3), (7,), (4097, 2)))
        for dtype in ("float32", "float16", "bfloat16", "float64")
    }
    write_all(tmp_path / "file", tensors, {"told": "x"})
    return tmp_path / "file"


def test_it_reads_what_safetensors_reads_in_any_order_and_at_the_same_alignment(file):
    mapped, expected = MappedFile(file), load_file(file)
    assert set(mapped.names) == set(expected)
    assert mapped.metadata == {"told": "x"}
    for names in (mapped.names, mapped.names[::-1], mapped.names[2:5], *([name] for name in mapped.names)):
        found = mapped.tensors(names)
        assert list(found) == list(names)
        assert all(torch.equal(found[name], expected[name]) for name in names)
        assert all(found[name].dtype == expected[name].dtype for name in names)


def test_tensors_outlive_the_file_and_its_name(file):
    name = "2.float32"
    expected, mapped = load_file(file)[name], MappedFile(file)
    file.unlink()
    found = mapped.tensors([name])[name]
    del mapped
    assert torch.equal(found, expected)


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux's /proc"
)
def test_what_was_read_leaves_memory_with_its_tensors(tmp_path):
    many = {str(one): torch.ones(MEGABYTES << 18) for one in range(8)}
    write_all(tmp_path / "file", many, {})
    many.clear()
    mapped, before, most = MappedFile(tmp_path / "file"), _resident(), 0
    for name in mapped.names:
        assert float(mapped.tensors([name])[name].sum()) == MEGABYTES << 18
        most = max(most, _resident())
    assert most - before < 2 * MEGABYTES << 20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
