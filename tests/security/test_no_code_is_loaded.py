"""No source file calls what could run code from a model's or an adapter's files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for package in ("cross_lora_core", "tasks", "flows", "examples", "infra")
    for path in (ROOT / package).rglob("*.py")
)
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle", "pandas"}
RUNNERS = {"eval", "exec", "compile", "__import__", "input"}
UNPACKERS = {"extractall", "extract", "unpack_archive"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name it is made by."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keywords(call: ast.Call) -> dict[str, object]:
    """Keyword arguments that are literals."""
    return {
        one.arg: one.value.value for one in call.keywords if one.arg and isinstance(one.value, ast.Constant)
    }


def findings(source: str) -> list[str]:
    tree = ast.parse(source)
    found = [f"import {name}" for name in imported(tree) if name.split(".")[0] in UNPICKLERS]
    for name, call in calls(tree):
        last, said = name.rpartition(".")[2], keywords(call)
        if name in RUNNERS or last in UNPACKERS or name in ("os.system", "os.popen"):
            found.append(f"{name}() at line {call.lineno}")
        if name.endswith("torch.load") and said.get("weights_only") is not True:
            found.append(f"torch.load without weights_only at line {call.lineno}")
        if last in ("load", "load_all") and "yaml" in name and "safe" not in ast.unparse(call):
            found.append(f"{name} at line {call.lineno}")
        if said.get("shell") is True:
            found.append(f"shell=True at line {call.lineno}")
    return found + trusting(tree)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def trusting(tree: ast.AST) -> list[str]:
    """`trust_remote_code` with anything but False, as a keyword or as a key."""
    named: list[tuple[str | None, ast.expr]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            named += [(one.arg, one.value) for one in node.keywords]
        if isinstance(node, ast.Dict):
            named += [
                (ast.literal_eval(key), value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            ]
    return [
        f"trust_remote_code at line {value.lineno}"
        for name, value in named
        if name == "trust_remote_code" and not (isinstance(value, ast.Constant) and value.value is False)
    ]


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 80


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_loads_code(path: Path) -> None:
    assert findings(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "torch.load(file, weights_only=flag)",
        "eval('1')",
        "exec(text)",
        "input()",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(file)",
        "yaml.load(text)",
        "M.from_pretrained(x, trust_remote_code=True)",
        "M.from_pretrained(x, trust_remote_code=trusted)",
        "options = {'trust_remote_code': True}",
    ],
)
def test_the_scan_finds_what_it_looks_for(source: str) -> None:
    assert findings(source)


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(file, weights_only=True)",
        "model.eval()",
        "yaml.safe_load(text)",
        "f(trust_remote_code=False)",
    ],
)
def test_the_scan_leaves_the_rest_alone(source: str) -> None:
    assert not findings(source)
