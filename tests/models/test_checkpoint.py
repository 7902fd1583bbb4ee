"""Reading safetensors: only what is asked for, and a clear word about every kind of damage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cross_lora_core.errors import BaseModelError
from cross_lora_core.models import Role, open_base
from cross_lora_core.models.checkpoint import open_checkpoint
from cross_lora_core.storage import LocalFolder
from tests.models.conftest import PicoFactory

ROOT = Path(__file__).resolve().parents[2]
SINGLE = "model.safetensors"
SECOND_SHARD = "model-00002-of-00003.safetensors"


def write_sparse(path: Path, shapes: dict[str, list[int]]) -> int:
    """A fp16 safetensors file whose data is one hole: any size, no disk. Returns its length."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        stop = offset + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, stop]}
        offset = stop
    encoded = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + offset)
    return 8 + len(encoded) + offset


def huge_gpt_neox(folder: Path) -> int:
    """A base of 47 GiB on paper, 1.1 GiB per fused projection; returns the file's length."""
    width, layers = 14_336, 8
    config = {
        "model_type": "gpt_neox",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 112,
        "intermediate_size": 4 * width,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"gpt_neox.embed_in.weight": [400_000, width]}
    for layer in range(layers):
        prefix = f"gpt_neox.layers.{layer}."
        shapes[prefix + "attention.query_key_value.weight"] = [3 * width, width]
        shapes[prefix + "attention.dense.weight"] = [width, width]
        shapes[prefix + "mlp.dense_h_to_4h.weight"] = [4 * width, width]
        shapes[prefix + "mlp.dense_4h_to_h.weight"] = [width, 4 * width]
        shapes[prefix + "input_layernorm.weight"] = [width]
    return write_sparse(folder / SINGLE, shapes)


def peak_mib(code: str, folder: Path) -> int:
    """Peak memory of a fresh process that runs `code` on a `base`, above that of imports and opening."""
    script = f"""
import sys, torch
torch.set_num_threads(1)
from cross_lora_core.models import open_base
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
base = open_base(sys.argv[1])
before = peak()
{code}
print(peak() - before)
"""
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=120)
    return int(done.stdout)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@needs_proc
def test_reading_takes_memory_for_what_is_read_and_not_for_the_file(tmp_path: Path) -> None:
    length = huge_gpt_neox(tmp_path)
    assert length > 32 << 30
    rows = peak_mib(
        "assert base.read_embedding([0, 399_999]).shape == (2, 14_336); base.read_gains(7, 'q')", tmp_path
    )
    assert rows < 64
    square_mib = 14_336 * 14_336 * 4 >> 20
    weight = peak_mib("assert base.read_weight(7, 'v').shape == (14_336, 14_336)", tmp_path)
    assert weight < 1.5 * square_mib, "a fused tensor must be read by slices"


@needs_proc
def test_no_file_stays_open(pico: PicoFactory) -> None:
    base = open_base(pico("llama", shards=3))
    base.read_weight(0, Role.q)
    base.read_embedding([1, 5])
    opened = {str(descriptor.resolve()) for descriptor in Path("/proc/self/fd").iterdir()}
    assert not any(str(base.location) in name for name in opened)


def test_a_missing_shard_is_named(own_pico: PicoFactory) -> None:
    folder = own_pico("llama", shards=3)
    (folder / SECOND_SHARD).unlink()
    with pytest.raises(BaseModelError, match=f"{SECOND_SHARD}.*Download the missing shard"):
        open_base(folder)


@pytest.mark.parametrize("cut", [1, 1000, None])
def test_a_truncated_file_is_named(own_pico: PicoFactory, cut: int | None) -> None:
    folder = own_pico("llama", shards=3)
    shard = folder / SECOND_SHARD
    content = shard.read_bytes()
    shard.write_bytes(content[:-cut] if cut else content[:5])
    with pytest.raises(BaseModelError, match=f"{SECOND_SHARD}.*truncated or damaged"):
        open_base(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not safetensors at all",
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": {}}',
    ],
)
def test_a_file_that_is_no_safetensors_is_named(own_pico: PicoFactory, content: bytes) -> None:
    folder = own_pico("llama")
    (folder / SINGLE).write_bytes(content)
    with pytest.raises(BaseModelError, match=r"model\.safetensors|tensors of a llama"):
        open_base(folder)


def test_a_file_that_shrinks_after_opening_is_named(own_pico: PicoFactory) -> None:
    folder = own_pico("llama")
    base = open_base(folder)
    content = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(content[: len(content) // 2])
    with pytest.raises(BaseModelError, match="truncated or damaged"):
        base.read_weight(1, Role.q)


def test_a_file_that_vanishes_after_opening_is_named(own_pico: PicoFactory) -> None:
    folder = own_pico("llama")
    base = open_base(folder)
    (folder / SINGLE).unlink()
    with pytest.raises(BaseModelError, match=SINGLE):
        base.read_weight(0, Role.q)


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": ["a"]}', "{}"])
def test_a_damaged_index_is_named(own_pico: PicoFactory, index: str) -> None:
    folder = own_pico("llama", shards=3)
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(BaseModelError, match=r"index\.json"):
        open_base(folder)


def edit_index(folder: Path, **entries: str) -> None:
    path = folder / "model.safetensors.index.json"
    index: dict[str, Any] = json.loads(path.read_text())
    index["weight_map"].update(entries)
    path.write_text(json.dumps(index))


def test_an_index_that_disagrees_with_its_shards_is_named(own_pico: PicoFactory) -> None:
    folder = own_pico("llama", shards=3)
    edit_index(folder, extra=SECOND_SHARD)
    with pytest.raises(BaseModelError, match=f"tensor extra in {SECOND_SHARD}"):
        open_base(folder)


def test_an_index_does_not_lead_out_of_the_folder(own_pico: PicoFactory) -> None:
    folder = own_pico("llama", shards=3)
    edit_index(folder, extra="../elsewhere.safetensors")
    with pytest.raises(BaseModelError, match="without a folder"):
        open_base(folder)


def test_a_pickle_is_never_loaded(own_pico: PicoFactory) -> None:
    folder = own_pico("llama")
    (folder / SINGLE).rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match="Convert the base to safetensors"):
        open_base(folder)


def test_a_folder_without_weights_says_what_it_holds(own_pico: PicoFactory) -> None:
    folder = own_pico("llama")
    (folder / SINGLE).unlink()
    with pytest.raises(BaseModelError, match=r"tokenizer\.json"):
        open_base(folder)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.float64])
def test_other_number_formats_are_refused_by_name(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"w": torch.ones(2, 2).to(dtype)}, tmp_path / SINGLE)
    with pytest.raises(BaseModelError, match="w in fp16, bf16 or fp32"):
        open_checkpoint(LocalFolder(tmp_path)).read("w")


def test_slices_are_joined_in_the_order_asked(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(4, 6)
    save_file({"w": whole}, tmp_path / SINGLE)
    checkpoint = open_checkpoint(LocalFolder(tmp_path))
    assert torch.equal(checkpoint.read("w"), whole)
    assert torch.equal(checkpoint.read("w", [(3, 4), (0, 2)]), whole[[3, 0, 1]])
