"""Adapters and bases made to run code, to exhaust the worker or to stop a fleet: an answer each, never an accident."""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cross_lora_core.adapters import check_adapter, read_adapter
from cross_lora_core.errors import AdapterRefused, BaseModelError, ConfigurationError
from cross_lora_core.evaluation import read_rows
from cross_lora_core.evaluation.loading import LoadedBase
from cross_lora_core.models import open_base
from tests.support.pico_models import build_pico

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
FACTORS = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 8),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": torch.ones(8, 2),
}


class Evil:
    """Unpickled anywhere, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "code-was-run"


def an_adapter(folder: Path, config: Any = None, text: str | None = None) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | (config or {})) if text is None else text)
    return folder


def with_header(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_the_trap_works(marker) -> None:
    pickle.loads(pickle.dumps(Evil(marker)))
    assert marker.exists()


@pytest.mark.parametrize(
    "wrapped", [lambda evil: evil, lambda evil: {"a.lora_A.weight": evil}], ids=["whole", "inside"]
)
@pytest.mark.parametrize(
    "save", [torch.save, lambda evil, file: file.write_bytes(pickle.dumps(evil))], ids=["zip", "bare"]
)
@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
def test_code_in_an_adapters_weights_is_never_run(tmp_path, marker, name, save, wrapped) -> None:
    folder = an_adapter(tmp_path / "adapter")
    save(wrapped(Evil(marker)), folder / name)
    with pytest.raises(AdapterRefused):
        read_adapter(folder)
    assert not marker.exists()


def test_a_base_that_is_a_pickle_is_refused_unread(tmp_path, marker) -> None:
    base = build_pico("llama", tmp_path / "base", layers=1)
    (base / "model.safetensors").unlink()
    torch.save({"weight": Evil(marker)}, base / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match="a pickle that could run code"):
        open_base(base)
    with pytest.raises(OSError):
        LoadedBase(base, torch.float32, torch.device("cpu"))
    assert not marker.exists()


CODE_BY_NAME = {
    "config.json": {"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}},
    "tokenizer_config.json": {
        "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
        "tokenizer_class": "EvilTokenizer",
    },
}


@pytest.mark.parametrize("file", CODE_BY_NAME)
def test_code_that_a_base_brings_is_never_run_and_never_asked_for(
    tmp_path, marker, monkeypatch, file
) -> None:
    """Without an answer given in advance, transformers asks the person at the terminal."""
    base = build_pico("llama", tmp_path / "base", layers=1)
    (base / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Evil: pass\n")
    (base / file).write_text(json.dumps(json.loads((base / file).read_text()) | CODE_BY_NAME[file]))
    asked: list[str] = []
    monkeypatch.setattr(builtins, "input", lambda question="": asked.append(question) or "y")
    with contextlib.suppress(ValueError):  # the tokenizer that needs its own code is refused
        LoadedBase(base, torch.float32, torch.device("cpu"))
    assert not marker.exists()
    assert asked == []


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_an_attention_from_the_hub_is_refused(tmp_path, name) -> None:
    base = build_pico("llama", tmp_path / "base", layers=1)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {name: "org/kernel:attention"}))
    with pytest.raises(BaseModelError, match="attention implementation"):
        open_base(base)


def test_a_module_named_by_an_adapter_is_not_imported(tmp_path) -> None:
    folder = an_adapter(tmp_path / "adapter", {"megatron_config": {"x": 1}, "megatron_core": "antigravity"})
    save_file(FACTORS, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterRefused, match="import"):
        read_adapter(folder)


def test_a_few_bytes_that_stand_for_petabytes_are_refused(tmp_path) -> None:
    folder = an_adapter(tmp_path / "adapter")
    torch.save({name: torch.ones(1).expand(10**8, 10**8) for name in FACTORS}, folder / "adapter_model.bin")
    with pytest.raises(AdapterRefused, match="plain tensors"):
        read_adapter(folder)


@pytest.mark.parametrize(
    "field",
    [
        {"rank_pattern": {"(a+)+b": 8}},
        {"alpha_pattern": {"(a|a)*b": 8}},
        {"rank_pattern": {"(x{1,9}){1,9}": 8}},
        {"rank_pattern": {".*.*.*.*q": 8}},
        {"target_modules": "(.*)*x"},
        {"exclude_modules": ".*" * 20 + "x"},
        {"layers_pattern": ["(a+)+"]},
        {"modules_to_save": ["(a+)+"]},
        {"rank_pattern": {"(": 8}},
        {"alpha_pattern": {"*": 8}},
        {"target_modules": "a" * 5000},
    ],
    ids=str,
)
def test_a_pattern_that_could_run_for_ever_is_refused(tmp_path, field) -> None:
    folder = an_adapter(tmp_path / "adapter", field)
    save_file(FACTORS, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterRefused, match="repeated groups"):
        read_adapter(folder)


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        r"^model\.layers\.\d+\.self_attn\.(q|k|v)_proj$",
        r".*layers\.1\.mlp\.(up|down)_proj",
        r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|up_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:mlp)\.(?:up))",
        r"^(?!.*visual)(?=.*\.(?:q_proj|v_proj)$).*$",
    ],
)
def test_the_patterns_people_use_are_not(tmp_path, pattern) -> None:
    folder = an_adapter(tmp_path / "adapter", {"target_modules": pattern})
    save_file(FACTORS, folder / "adapter_model.safetensors")
    assert read_adapter(folder).modules


CONFIGS = {
    "deep list": "[" * 100_000,
    "deep object": '{"a":' * 100_000,
    "no object": "[1]",
    "zero byte": "\0",
    "no alpha": json.dumps(CONFIG | {"lora_alpha": None}),
    "alpha NaN": json.dumps(CONFIG | {"lora_alpha": float("nan")}),
    "alpha infinite": '{"peft_type": "LORA", "r": 2, "lora_alpha": 1e999}',
    "rank zero": json.dumps(CONFIG | {"r": 0}),
    "rank negative": json.dumps(CONFIG | {"r": -1}),
    "rank of 400 digits": json.dumps(CONFIG | {"r": 10**400}),
    "rank a list": json.dumps(CONFIG | {"r": [1]}),
    "pattern without a number": json.dumps(CONFIG | {"rank_pattern": {"q_proj": "x"}}),
    "pattern a list": json.dumps(CONFIG | {"alpha_pattern": [1, 2]}),
    "saved modules a number": json.dumps(CONFIG | {"modules_to_save": 5}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_hostile_config_is_a_refusal(tmp_path, name) -> None:
    folder = an_adapter(tmp_path / "adapter", text=CONFIGS[name])
    save_file(FACTORS, folder / "adapter_model.safetensors")
    assert check_adapter(folder).status == "refused"


def factor(dtype: str, shape: list[int], offsets: list[int]) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HEADERS = {
    "empty": b"",
    "longer than the file": (2**63).to_bytes(8, "little") + b"{}",
    "deep": with_header(b"[" * 100_000, b""),
    "overflowing shape": with_header({"a.lora_A.weight": factor("F32", [10**12, 10**9], [0, 4])}, b"0000"),
    "negative shape": with_header({"a.lora_A.weight": factor("F32", [-1], [0, 4])}, b"0000"),
    "overlapping": with_header(
        {"a.lora_A.weight": factor("F32", [1, 1], [0, 4]), "a.lora_B.weight": factor("F32", [1, 1], [0, 4])},
        b"0000",
    ),
    "eight bits": with_header(
        {
            "a.lora_A.weight": factor("F8_E4M3", [1, 1], [0, 1]),
            "a.lora_B.weight": factor("F32", [1, 1], [1, 5]),
        },
        b"00000",
    ),
    "integers": with_header(
        {"a.lora_A.weight": factor("I64", [1, 1], [0, 8]), "a.lora_B.weight": factor("I64", [1, 1], [8, 16])},
        b"0" * 16,
    ),
    "rank zero": with_header(
        {"a.lora_A.weight": factor("F32", [0, 1], [0, 0]), "a.lora_B.weight": factor("F32", [1, 0], [0, 0])},
        b"",
    ),
    "endless name": with_header(
        {
            f"{'a' * 5000}.lora_{one}.weight": factor("F32", [1, 1], at)
            for one, at in (("A", [0, 4]), ("B", [4, 8]))
        },
        b"0" * 8,
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_hostile_safetensors_header_is_a_refusal(tmp_path, name) -> None:
    folder = an_adapter(tmp_path / "adapter", {"r": 1})
    (folder / "adapter_model.safetensors").write_bytes(HEADERS[name])
    assert check_adapter(folder).status == "refused"


@pytest.mark.parametrize(
    "header", [b"[" * 100_000, b'{"a": 1}', b"[]", b'{"a": {"dtype": "F32"}}', b"\xff\xfe"]
)
def test_a_hostile_header_of_a_base_is_an_error_that_says_so(tmp_path, header) -> None:
    base = build_pico("llama", tmp_path / "base", layers=1)
    (base / "model.safetensors").write_bytes(with_header(header, b""))
    with pytest.raises(BaseModelError):
        open_base(base)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_spoiled_byte_gets_past_the_readers(tmp_path, data) -> None:
    """Any byte of a good adapter may be another, and any of its files may end early."""
    folder = tmp_path / "adapter"
    folder.mkdir(exist_ok=True)
    legacy = data.draw(st.booleans(), "legacy")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    weights = folder / ("adapter_model.bin" if legacy else "adapter_model.safetensors")
    torch.save(FACTORS, weights) if legacy else save_file(FACTORS, weights)
    spoiled = data.draw(st.sampled_from([weights, folder / "adapter_config.json"]), "file")
    content = bytearray(spoiled.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4), "where"):
        content[at] = data.draw(st.integers(0, 255), "byte")
    spoiled.write_bytes(content[: data.draw(st.integers(0, len(content)), "length")])
    assert check_adapter(folder).status in ("ok", "partial", "refused")
    weights.unlink()


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"completion": ' * 50_000, "\0", '{"completion": 5}'], ids=lambda line: line[:20]
)
def test_a_hostile_evaluation_file_is_an_error_that_names_the_line(tmp_path, line) -> None:
    file = tmp_path / "evaluation.jsonl"
    file.write_text(f'{{"completion": "fine"}}\n{line}\n')
    with pytest.raises(ConfigurationError, match=r"evaluation\.jsonl:2"):
        read_rows(file)
