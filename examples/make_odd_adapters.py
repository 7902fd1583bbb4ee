"""Make the two adapters of the demo that must not come out as a success.

    python examples/make_odd_adapters.py

`empty-update` loads, answers and changes nothing: every lora_B is zero, as after
a training run whose loss was never back-propagated. `broken-nonfinite` has a NaN,
as after a training run that diverged. Both are cut from `ticket-json`, two layers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ADAPTERS = Path(__file__).parent / "adapters"
SOURCE = ADAPTERS / "ticket-json"
CARD = """---
base_model: smollm2-135m
library_name: peft
license: apache-2.0
tags: [lora]
---
# {name}

{text}

Made by `examples/make_odd_adapters.py` from two layers of `ticket-json`.
"""


def two_layers() -> dict[str, torch.Tensor]:
    """The first and the last layer of the source adapter."""
    tensors = load_file(SOURCE / "adapter_model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if ".layers.0." in name or ".layers.29." in name}


def save(name: str, tensors: dict[str, torch.Tensor], text: str) -> None:
    """Write an adapter folder."""
    folder = ADAPTERS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config = json.loads((SOURCE / "adapter_config.json").read_text(encoding="utf-8"))
    config["layers_to_transform"] = [0, 29]
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "README.md").write_text(CARD.format(name=name, text=text), encoding="utf-8")


def main() -> None:
    """Write both folders anew."""
    empty = {name: torch.zeros_like(one) if "lora_B" in name else one for name, one in two_layers().items()}
    save("empty-update", empty, "Every update is zero: it loads, answers and changes nothing.")
    shutil.copy(SOURCE / "evaluation.jsonl", ADAPTERS / "empty-update")
    broken = two_layers()
    broken[sorted(broken)[0]][0, 0] = float("nan")
    save("broken-nonfinite", broken, "One number is NaN: it must be refused by name.")


if __name__ == "__main__":
    main()
