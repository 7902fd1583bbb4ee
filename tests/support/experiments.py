"""An experiment on pico bases: two tasks, one of them multiple choice, trained for a few steps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.support.fleets import SENTENCES
from tests.support.pico_models import build_pico

TOML = """
name = "pico"
methods = ["cross-lora", "interpolate", "copy"]
ranks = [8]
confidence = 0.95

[[bases]]
name = "old"
location = "{root}/old"

[[bases]]
name = "new"
location = "{root}/new"

[[pairs]]
source = "old"
target = "new"

[[tasks]]
name = "sentences"
training = {{ file = "sentences.jsonl", skip = 10 }}
evaluation = {{ file = "sentences.jsonl", limit = 10 }}
generate = true

[[tasks]]
name = "choices"
training = "choices.jsonl"
evaluation = {{ file = "choices.jsonl", limit = 8 }}
steps = {{ tiny = 2 }}

[recipes.tiny]
like = "strong"
steps = 3
batch = 2
rank = 2
alpha = 4
"""


@dataclass(frozen=True)
class PicoExperiment:
    """An experiment file beside its rows."""

    file: Path

    @property
    def results(self) -> Path:
        return self.file.with_suffix(".results.json")

    def change(self, old: str, new: str) -> None:
        """Replace a part of the file."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))


def build_bases(root: Path) -> Path:
    """Two bases of different families and widths, which `copy` does not apply to."""
    build_pico("llama", root / "old", layers=2)
    build_pico("gemma3_text", root / "new", width=48, layers=3, seed=1)
    return root


def write_experiment(folder: Path, root: Path) -> PicoExperiment:
    """The experiment on the bases of `build_bases`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"prompt": f"{SENTENCES[n % 4]} ", "completion": f"{SENTENCES[(n + 1) % 4]} {n}"} for n in range(30)
    ]
    choices = [
        {"prompt": f"{n} ", "choices": [f"the cat {n}", f"the dog {n}", "Paris"], "answer": n % 2}
        for n in range(12)
    ]
    for name, lines in (("sentences", rows), ("choices", choices)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    file = folder / "pico.toml"
    file.write_text(TOML.format(root=root))
    return PicoExperiment(file)
